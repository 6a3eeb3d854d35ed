"""What is known after ten minutes: the streams, what is run, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.ten_minutes import ASKED_FROM, main
from eval.case import Case, read_cases
from eval.play import Played
from eval.suite import write
from joyvl_train.actions import Response, Silence
from joyvl_train.cli import compose
from joyvl_train.heldout import Step, Trace
from joyvl_train.timing import due

ROOT = Path(__file__).parents[2]


def transcript(case: Case, forgets: str) -> Played:
    """Of one who answers all but what is asked as `forgets` asks, and says one thing more."""
    told = {e.second: e.text for e in case.timeline.of("user")}
    onsets = tuple(due(case.timeline))
    says = {o.second: o.text for o in onsets} | {200: "A bus appeared."}
    says |= {
        s: "You are welcome." for s, text in told.items() if s >= ASKED_FROM and text == forgets
    }
    steps = tuple(
        Step(
            second,
            Response(says[second]) if second in says else Silence(),
            queries=(told[second],) if second in told else (),
        )
        for second in range(case.timeline.clip.seconds or 0)
    )
    return Played(Trace(case.id, "chat", "own", "model", steps, onsets), (0.0,) * len(steps))


def test_each_is_played_once_and_wrong_answers_are_counted(tmp_path: Path) -> None:
    played = []

    def start(command: Sequence[str]) -> int:
        config = compose(ROOT, list(command))
        played.append((config.checkpoint, config.eval.batch))
        cases = read_cases([*config.cases.paths])
        assert len(cases) == 12
        for case in cases:
            path = Path(config.run.dir) / "transcripts" / "model" / f"{case.id}.json"
            write(path, transcript(case, "Who am I?"), "key")
        (Path(config.run.dir) / "finished").touch()
        return 0

    given = [f"full={tmp_path / 'run'}", "--out", str(tmp_path / "out"), "--set", "eval.batch=3"]
    given += ["--results", str(tmp_path / "page.md")]
    assert main(given, start) == 0
    assert main(given, start) == 0
    assert played == [(str(tmp_path / "run"), 3)]
    text = (tmp_path / "page.md").read_text()
    assert "| full | quiet | 12 of 18 | 18 of 18 | 0.1 |" in text
    assert "| full | described | 12 of 18 | 18 of 18 | 0.1 |" in text


def test_a_run_that_fails_is_told(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")], lambda command: 2) == 2


def test_what_is_asked_was_told_and_is_due(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path)], lambda command: 2) == 2
    for case in read_cases([tmp_path / "cases"]):
        told = " ".join(e.text for e in case.timeline.of("user") if e.second < 10)
        asked = [onset for onset in due(case.timeline) if onset.second >= ASKED_FROM]
        assert len(asked) == 6 and all(o.rule and o.rule.facts[0] in told for o in asked)
        described = case.id.endswith("described")
        assert ("Describe what happens." in told) == described
