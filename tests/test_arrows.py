"""Who may import whom, and what must load without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "joyvl_train"
MIDDLE = {"data_pipeline", "rl", "serve"}
MAY_IMPORT = {
    LIBRARY: set(),
    "data_pipeline": {LIBRARY},
    "rl": {LIBRARY},
    "serve": {LIBRARY},
    "eval": {LIBRARY, *MIDDLE},
    "recipes": {LIBRARY, *MIDDLE, "eval"},
}
FILES = [(folder, path) for folder in MAY_IMPORT for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(source: str) -> Iterator[str]:
    """The dotted names that `source` imports, at any depth, by statement or by a literal name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where a name comes from"
            yield node.module or ""
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function.endswith(("import_module", "__import__")) and node.args:
                yield ast.unparse(node.args[0]).lstrip("f").strip("'\"")


def breaches(folder: str, source: str) -> list[str]:
    others = set(MAY_IMPORT) - MAY_IMPORT[folder] - {folder}
    return [name for name in imported(source) if name.partition(".")[0] in others]


@pytest.mark.parametrize(
    ("folder", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES]
)
def test_imports_follow_the_arrows(folder, path):
    found = breaches(folder, path.read_text(encoding="utf-8"))
    if path == ROOT / LIBRARY / "cli.py":  # the only edge upward, by name
        assert [name.partition(".")[0] for name in found] == ["recipes"]
        found = []
    assert found == []


@pytest.mark.parametrize(
    ("folder", "source", "count"),
    [
        ("joyvl_train", "import data_pipeline.world", 1),
        ("joyvl_train", "def f():\n    from recipes import sft", 1),
        ("joyvl_train", "import importlib\nimportlib.import_module(f'rl.{x}')", 1),
        ("joyvl_train", "import torch\nfrom joyvl_train.actions import Silence", 0),
        ("rl", "from serve.session import Session", 1),
        ("serve", "import data_pipeline", 1),
        ("data_pipeline", "import eval.cases", 1),
        ("eval", "import serve.session, rl, data_pipeline, recipes", 1),
        ("recipes", "import serve.session, rl, data_pipeline, eval.cases, joyvl_train", 0),
    ],
)
def test_breaches_are_seen(folder, source, count):
    assert len(breaches(folder, source)) == count


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["actions", "timeline"])
def test_the_contract_needs_the_standard_library_alone(module):
    modules = loaded_by(f"import joyvl_train.{module}")
    own = {name.partition(".")[0] for name in modules} - {LIBRARY}
    started = {name.partition(".")[0] for name in loaded_by("pass")}
    assert own - started <= set(sys.stdlib_module_names)


def test_listing_the_recipes_needs_no_torch():
    modules = loaded_by(
        "from pathlib import Path\nfrom joyvl_train.cli import main\nmain([], Path())"
    )
    assert "joyvl_train.config" in modules
    assert not modules & {"torch", "transformers", "hydra", "numpy"}
