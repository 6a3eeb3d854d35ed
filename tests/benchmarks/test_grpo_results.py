"""The page of what recipe=grpo made of a checkpoint: gains beside the start, with intervals."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.grpo_results import main
from joyvl_train.actions import Response, Silence
from joyvl_train.heldout import Step, Trace, metrics, write_traces
from joyvl_train.timeline import Rule
from joyvl_train.timing import Onset

ONSET = Onset(5, "A car.", rule=Rule("exact"))
CLIPS = 20


def traces(hits: int, alarms: int, clips: int = CLIPS) -> list[Trace]:
    """Streams of 18 seconds: `hits` onsets met, `alarms` false alarms."""

    def said(clip: int, second: int) -> bool:
        return (second == 5 and clip < hits) or (second == 12 and clip < alarms)

    return [
        Trace(
            f"clip{i}",
            "alerting" if i % 2 else "qa",
            "test",
            "model",
            tuple(Step(t, Response("A car.") if said(i, t) else Silence()) for t in range(18)),
            (ONSET,),
        )
        for i in range(clips)
    ]


def run(folder: Path, seed: int, hits: int, alarms: int, clips: int = CLIPS) -> str:
    folder.mkdir()
    start, tuned = traces(10, 10), traces(hits, alarms, clips)
    write_traces(folder / "start.jsonl", start)
    write_traces(folder / "traces.jsonl", tuned)
    found = metrics(tuned, samples=5) | metrics(start, "baseline/start", samples=5)
    found |= {"train/steps": 36, "train/seconds": 846, "eval/silence_bias": 0.25}
    found |= {"baseline/start/silence_bias": 0}
    (folder / "metrics.json").write_text(json.dumps(found))
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "data": {"seed": 7}}))
    return str(folder)


def test_gains_are_told_beside_the_start(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"run{s}", s, 15 + s, 5) for s in (0, 1)]
    out = tmp_path / "page.md"
    assert main([*folders, "--out", str(out)]) == 0
    text = out.read_text()
    # 20 clips of 18 seconds are a tenth of an hour: 100 false alarms an hour, then 50.
    assert "0.1 hours of held-out stream (20 clips of `data.seed` 7); seeds 0, 1." in text
    assert "| run0 | 0.50 → 0.75 | 1.00 → 1.00 | 100 → 50.0 | 0 → 0.25 | 36 | 14.1 |" in text
    assert "- False alarms an hour: **-50 %** [-" in text
    # F1 of 0.5; together 31 matches of 40 onsets and 41 emissions: 62 / 81.
    assert "onset F1 to 1, **53 %** [" in text
    assert "| recipe=grpo − the start | +0.27 [" in text
    assert "| alerting | 0.50 → " in text and str(tmp_path) not in text


def test_a_family_is_its_own_clips_alone(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    assert main([run(tmp_path / "run", 0, 20, 0), "--out", str(out)]) == 0
    assert "| qa | 0.50 → 1.00 | 1.00 → 1.00 | 100 → 0.0 |" in out.read_text()


def test_runs_that_are_not_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ["--out", str(tmp_path / "page.md")]
    assert main([run(tmp_path / "fewer", 0, 9, 5, clips=18), *page]) == 2
    assert "is not in every run" in capsys.readouterr().err
    (tmp_path / "sft").mkdir()
    assert main([str(tmp_path / "sft"), *page]) == 2
    assert "was not measured beside its start" in capsys.readouterr().err
