"""OVO-Bench and StreamingBench records as cases: their own rules, on worked examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.case import CaseError
from eval.play import play
from eval.public import by_subset, points, public_cases
from eval.suite import View, frames_of
from eval.systems import Recorded
from joyvl_train.actions import Response
from joyvl_train.cli import main
from tests.joyvl_train.videos import make_video

ROOT = Path(__file__).resolve().parents[2]

QUESTION = {
    "id": 1, "task": "EPM", "video": "a.mp4", "realtime": 10, "question": "What is it?",
    "answer": "a ball", "options": ["a hat", "a ball"], "gt": 1,
}  # fmt: skip
CLUE = {
    "id": 2, "task": "CRR", "video": "a.mp4", "question": "What does she do?",
    "answer": "She waves.",
    "ask_time": 4, "clue_time": 12,
    "test_info": [{"realtime": 5, "type": 0}, {"realtime": 13, "type": 1}],
}  # fmt: skip
STEPS = {
    "id": 3, "task": "SSR", "video": "a.mp4", "tutorial": "MakeTea",
    "all_steps": ["boil the water", "pour the water"], "start_time": [3, 9], "end_time": [8, 14],
    "test_info": [
        {"realtime": 5, "step": "boil the water", "type": 1},
        {"realtime": 5, "step": "pour the water", "type": 0},
        {"realtime": 12, "step": "pour the water", "type": 1},
    ],
}  # fmt: skip
COUNT = {
    "id": 4, "task": "REC", "video": "a.mp4", "activity": "jumping", "start_times": [2, 7],
    "end_times": [4, 9],
    "test_info": [
        {"realtime": 3, "count": 0}, {"realtime": 5, "count": 1}, {"realtime": 12, "count": 2},
    ],
}  # fmt: skip
BROKEN = {
    "id": 5,
    "task": "EPM",
    "video": "none.mp4",
    "realtime": 1,
    "question": "?",
    "options": [],
}

OUTPUT = [
    {
        "time": "[0:00:00 - 0:00:10]", "video_path": "./a.mp4", "video_categories": "sport",
        "questions": [
            {
                "task_type": "Proactive Output", "required_ability": "memory",
                "question": 'When the ball is in, output "Goal".', "time_stamp": "00:00:02",
                "ground_truth_time_stamp": "00:00:08", "ground_truth_output": "Goal",
            }
        ],
    }
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", [k / 2 for k in range(36)])
    records = [QUESTION, CLUE, STEPS, COUNT, BROKEN]
    (tmp_path / "ovo.json").write_text(json.dumps(records))
    (tmp_path / "streaming.json").write_text(json.dumps(OUTPUT))
    return tmp_path


def scored(folder: Path, kind, file: str, said: dict[str, dict[int, str]]):
    """Task -> verdicts on a system that says this."""
    cases, refused = public_cases(kind, folder / file, folder / "videos")
    found = {}
    for case in cases:
        words = {t: Response(text) for t, text in said.get(case.scenario, {}).items()}
        frames = frames_of(case, View(32, str(folder / "cache")))
        trace = play(case, frames, Recorded("x", {case.id: words})).trace
        found[case.scenario] = points(kind, case.timeline, trace)
    return found, refused


def test_records_become_cases_and_broken_ones_are_refused(folder: Path) -> None:
    said = {
        "EPM": {11: "B"},
        "CRR": {12: "She waves."},
        "SSR": {3: "Boil the water.", 9: "Pour the water."},
        "REC": {4: "One.", 9: "2"},
    }
    found, refused = scored(folder, "ovo_bench", "ovo.json", said)
    assert found == {"EPM": [True], "CRR": [True] * 2, "SSR": [True] * 3, "REC": [True] * 3}
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"EPM": {10: "A ball."}}, {"EPM": [True]}),
        ({"EPM": {10: "a hat", 12: "a ball"}}, {"EPM": [False]}),  # the first answer counts
        ({"EPM": {15: "B"}}, {"EPM": [False]}),  # too late
        ({"EPM": {9: "B"}}, {"EPM": [False]}),  # before it was asked
        ({"CRR": {4: "She waves."}}, {"CRR": [False, True]}),
        ({"CRR": {}}, {"CRR": [True, False]}),
        ({"SSR": {3: "Boil the water."}}, {"SSR": [True, True, False]}),
        ({"SSR": {4: "I see a kettle."}}, {"SSR": [False, True, False]}),
        ({"REC": {2: "1", 4: "2"}}, {"REC": [False, False, True]}),
        ({"REC": {}}, {"REC": [True, False, False]}),
    ],
)
def test_their_own_rules_on_worked_examples(folder: Path, said, wanted) -> None:
    found, _ = scored(folder, "ovo_bench", "ovo.json", said)
    for task, verdicts in wanted.items():
        assert found[task] == verdicts


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({8: "Goal!"}, True),
        ({6: "Goal"}, True),
        ({11: "Goal"}, False),
        ({8: "Yes"}, False),
        ({}, False),
    ],
)
def test_proactive_output(folder: Path, said, right: bool) -> None:
    found, _ = scored(
        folder, "streamingbench_proactive", "streaming.json", {"Proactive Output": said}
    )
    assert found == {"Proactive Output": [right]}


def test_subsets_are_told_apart() -> None:
    rates = by_subset([("a", [True, False]), ("a", [True]), ("b", [False])])
    assert rates["a"].value == pytest.approx(2 / 3) and rates["a"].count == 3
    assert rates["b"].value == 0.0


def test_test_times_that_are_none_are_told(folder: Path) -> None:
    for wrong in ([3], [{"count": 1}], [{"realtime": "x", "type": 1}]):
        (folder / "ovo.json").write_text(json.dumps([{**CLUE, "test_info": wrong}]))
        found, (refused,) = scored(folder, "ovo_bench", "ovo.json", {})
        assert found == {} and refused.reason == "bad test_info"
    with pytest.raises(CaseError, match="no such file of annotations"):
        public_cases("ovo_bench", folder / "none.json", folder / "videos")


def test_the_recipe_plays_them(folder: Path, one_thread: None, capsys) -> None:
    given = ["recipe=eval", "cases.benchmark=ovo_bench", "cases.systems=[trivial]"]
    given += [f"cases.annotations={folder / 'ovo.json'}", f"cases.videos={folder / 'videos'}"]
    given += [f"run.root={folder / 'outputs'}", f"run.dir={folder / 'run'}", "cases.workers=1"]
    given += [f"data.cache_dir={folder / 'cache'}"]
    assert main(given, ROOT) == 0
    told = json.loads((folder / "run" / "metrics.json").read_text())
    assert told["cases/played"] == 4 and told["cases/rejected"] == 1
    assert told["accuracy/always silent/CRR"] == 0.5 and told["accuracy/always silent/EPM"] == 0
    assert len((folder / "run" / "rejects.jsonl").read_text().splitlines()) == 1
    assert main([*given[:3], f"run.dir={folder / 'other'}", f"run.root={folder}"], ROOT) == 2
    assert "cases.annotations is empty" in capsys.readouterr().err
