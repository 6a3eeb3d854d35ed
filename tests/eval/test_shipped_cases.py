"""The cases that ship: how many of what, apart from training, true to their scripts."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.packages import CLIPS
from data_pipeline.world.languages import LINES, ROMANIZED, WORDS
from data_pipeline.world.pictures import picture_set
from data_pipeline.world.splits import group
from data_pipeline.world.stories.recall import ASK_MEMORY
from data_pipeline.world.streams import HELD_OUT
from data_pipeline.world.wordings import ASK
from eval.case import SCENARIOS, Case, read_cases
from eval.pinned import FOLDER, changes, pinned
from eval.rules import judge
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.content import right
from joyvl_train.heldout import Step, trace_of
from joyvl_train.timeline import actions
from joyvl_train.timing import due

SUITE = read_cases([FOLDER / "scenarios"])
DELEGATION = read_cases([FOLDER / "delegation"])
CASES = [*SUITE, *DELEGATION]


def test_there_are_58_cases_in_six_scenarios_and_12_of_delegation() -> None:
    counts = Counter(case.scenario for case in SUITE)
    assert counts == dict(zip(SCENARIOS, (10, 10, 10, 10, 9, 9), strict=True))
    assert len(SUITE) == 58 and len(DELEGATION) == 12
    assert all(case.path.parent.name == case.scenario for case in CASES)


def test_a_third_plays_on_real_footage_of_clips_that_training_never_shows() -> None:
    test = {clip.name for clip in CLIPS if clip.split == "test"}
    on_footage = [case for case in SUITE if case.footage]
    assert 3 * len(on_footage) >= len(SUITE)
    assert {name for case in on_footage for name in case.footage} <= test


def test_memory_reaches_past_chunks_of_all_lengths() -> None:
    reach = sorted(case.memory for case in SUITE if case.scenario == "memory")
    assert sum(100 < r <= 180 for r in reach) >= 2
    assert sum(400 <= r <= 620 for r in reach) >= 2
    assert sum(r >= 1700 for r in reach) >= 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_case_has_a_composition_that_training_never_holds(case: Case) -> None:
    """By the rule that the training streams are made by (`data_pipeline.world.splits`)."""
    texts = " ".join(event.text for event in case.timeline.of("user"))
    event, thing, asked = case.held_out.split(" | ")
    assert event in (*HELD_OUT, "screens", "screen_named") or group(case.held_out) == "test"
    # The wording is the one that is said, with something in its gaps.
    pieces = [piece for piece in _gaps(asked) if piece]
    at = -1
    for piece in pieces:
        at = texts.find(piece, at + 1)
        assert at >= 0, (asked, texts)
    there = _shown(case) + texts
    assert all(word in there for word in thing.split(": ")[-1].split(" "))


def _gaps(wording: str) -> list[str]:
    parts = wording.replace("{", "\0").replace("}", "\0").split("\0")
    return parts[::2]


def _shown(case: Case) -> str:
    assert case.script is not None
    return " ".join(f"{h.thing} {h.what}" for h in case.script.happenings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_must_be_seen_is_checked_against_the_script(case: Case) -> None:
    """Alerts, counts, words and departures name what is seen; the file's own check holds them."""
    text = case.path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("  - {at:") and "says:" in line]
    seen = sum("seen:" in line for line in lines)
    if case.scenario in ("monitoring", "counting", "translation") and "so-far" not in case.id:
        assert seen or not case.timeline.of("assistant") or case.id == "how-many-bananas"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_gold_answers_are_right_and_score_full_marks(case: Case) -> None:
    for event in case.timeline.of("assistant"):
        assert right(event.rule, event.text, event.text) is not False
    gold = actions(case.timeline)
    steps = [Step(second, action) for second, action in enumerate(gold)]
    onsets = due(case.timeline, None, case.early, case.late)
    assert judge(trace_of(case.timeline, "gold", steps, onsets)).score == 2.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_who_talks_all_the_time_or_never_gets_no_full_marks(case: Case) -> None:
    onsets = due(case.timeline, None, case.early, case.late)
    usual = Counter(e.text for e in case.timeline.of("assistant")).most_common(1)
    text = usual[0][0] if usual else "Yes."
    seconds = range(case.seconds or 0)
    talk = trace_of(case.timeline, "talk", [Step(t, Response(text)) for t in seconds], onsets)
    still = trace_of(case.timeline, "still", [Step(t, Silence()) for t in seconds], onsets)
    assert judge(talk).score < 1.0
    if onsets:
        assert judge(still).score == 0.0


def test_one_case_asks_for_narration_at_a_fixed_cadence_and_two_show_screens() -> None:
    events = Counter(case.held_out.split(" | ")[0] for case in SUITE)
    assert events["cadence"] == 1 and events["screens"] == events["screen_named"] == 1
    assert events["put"] == events["switch"] == 1


def test_translations_include_repeated_lines_and_romanization() -> None:
    known = {text: english for (_, text), english in (WORDS | LINES).items()}
    known |= {text: english for (_, text), (_, english) in ROMANIZED.items()}
    repeated = romanized = 0
    for case in (case for case in SUITE if case.scenario == "translation"):
        assert case.script is not None
        said = [e.text.casefold() for e in case.timeline.of("assistant")]
        shown = [caption.text for caption in case.script.scene.captions]
        repeated += any(a == b for a, b in itertools.pairwise(shown))
        romanized += case.held_out.startswith("script")
        assert all(word in {k.casefold() for k in known.values()} for word in said)
    assert repeated >= 3 and romanized >= 2


def test_delegations_come_back_late_wrong_empty_or_never() -> None:
    delays, never, tasks = [], 0, 0
    for case in DELEGATION:
        asked = {e.id: e for e in case.timeline.of("assistant") if e.question is not None}
        back = {e.answers: e for e in case.timeline.of("background")}
        tasks += len(asked)
        delays += [back[name].second - asked[name].second for name in asked if name in back]
        never += sum(name not in back for name in asked)
        for name in asked:
            assert Delegation(asked[name].text, str(asked[name].question))
    assert tasks >= 12 and never == 1 and min(delays) <= 9 and max(delays) == 40


def test_things_and_wordings_are_those_of_the_world() -> None:
    things = {picture.name for picture in picture_set("drawn")}
    for case in SUITE:
        event, thing, asked = case.held_out.split(" | ")
        assert asked in [w for ask in (ASK, ASK_MEMORY) for ws in ask.values() for w in ws] or (
            case.scenario == "memory"
        )
        if event in ("appear", "first", "leave", "hold", "count", "total"):
            assert thing in things or thing.split(" ", 1)[1] in things


def test_the_cases_are_what_was_pinned(tmp_path: Path) -> None:
    assert changes(CASES) == []
    names = {case.path.relative_to(FOLDER).as_posix() for case in CASES}
    assert set(pinned()) == names
    known = dict(pinned())
    first, second = sorted(known)[:2]
    known[first] = "0" * 64
    del known[second]
    assert changes(CASES, known) == [
        f"{first}: changed since the cases were pinned",
        f"{second}: new since the cases were pinned",
    ]
