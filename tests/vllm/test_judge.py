"""The model judge of recipe=eval, asked over HTTP of a real vLLM, which keeps to its schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyvl_train.cli import main
from tests.eval.made_cases import FIRE
from tests.vllm.served import ROOT, needs_vllm

pytestmark = pytest.mark.slow


@needs_vllm
def test_each_pair_is_judged_in_both_orders(server: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    (cases / "fire.yaml").write_text(FIRE)
    said = {
        "one": '{"case": "fire", "time": 24, "text": "A fire appeared."}',
        "two": '{"case": "fire"}',
    }
    for name, line in said.items():
        (tmp_path / f"{name}.jsonl").write_text(line + "\n")
    recorded = ",".join(str(tmp_path / f"{name}.jsonl") for name in said)
    given = ["recipe=eval", "cases=own", f"cases.paths=[{cases}]", f"cases.recorded=[{recorded}]"]
    given += ["cases.systems=[]", "cases.workers=1", "cases.samples=20"]
    given += [f"agents.url={server}/v1", "agents.model=tiny", f"agents.cache={tmp_path / 'kept'}"]
    given += [f"run.root={tmp_path / 'outputs'}", f"run.dir={tmp_path / 'run'}"]
    assert main(given, ROOT) == 0
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # A model that knows nothing of it: what it says is worth nothing, but that it is heard is.
    assert told["judge/unscored/two"] == 0 and told["judge/win_rate/two.count"] == 1
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 2
    assert "Model judge" in (tmp_path / "run" / "report.html").read_text()
