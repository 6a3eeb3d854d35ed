"""Prints the exact versions, in this environment, of everything the project asks for.

Follows the requirements of pyproject.toml (`joyvl[dev]` and the build system) through the metadata
of what is installed, so that stray packages stay out.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for name in ("deepspeed", "wandb", "trl", "tools", "slurm", "serve", "test", "dev"):
        wanted += [text for text in extras[name] if not text.startswith("joyvl[")]
    queue = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    pins: dict[str, str] = {}
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        found = distribution(name)
        assert requirement.specifier.contains(found.version, prereleases=True), (
            f"{name} {found.version} is not in the range {requirement.specifier}"
        )
        # A local label such as +cpu names a build, not a version that others can get.
        pins[name] = found.version.partition("+")[0]
        for text in found.requires or []:
            needed = Requirement(text)
            marks = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if needed.marker is None or any(needed.marker.evaluate(mark) for mark in marks):
                queue.append(needed)
    print("# Exact versions of joyvl[dev] and all below it; made by `make lock`.")
    for name in sorted(pins):
        print(f"{name}=={pins[name]}")


if __name__ == "__main__":
    main()
