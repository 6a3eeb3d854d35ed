"""The cases that ship: how many of what, apart from training, true to their scripts."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.packages import CLIPS
from data_pipeline.world.languages import LINES, ROMANIZED, WORDS
from data_pipeline.world.pictures import COLOURS, picture_set
from data_pipeline.world.splits import group
from data_pipeline.world.stories.recall import ASK_MEMORY
from data_pipeline.world.streams import HELD_OUT
from data_pipeline.world.wordings import ASK
from eval.case import SCENARIOS, Case, read_cases
from eval.pinned import FOLDER, changes, pinned
from eval.verdicts import by_rules
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.content import right
from joyvl_train.heldout import Step, trace_of
from joyvl_train.timeline import actions
from joyvl_train.timing import Onset, due

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
    part = text.split("\ndue:\n")[1] if "\ndue:\n" in text else ""
    lines = [line for line in part.splitlines() if line.startswith("  - {at:")]
    lines = lines[: len(case.timeline.of("assistant"))]
    if case.scenario in ("monitoring", "counting", "translation"):
        asked = {event.second for event in case.timeline.of("user")}
        for event, line in zip(case.timeline.of("assistant"), lines, strict=True):
            assert "seen:" in line or event.second in asked


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_gold_answers_are_right_and_score_full_marks(case: Case) -> None:
    for event in case.timeline.of("assistant"):
        assert right(event.rule, event.text, event.text) is not False
    gold = actions(case.timeline)
    steps = [Step(second, action) for second, action in enumerate(gold)]
    onsets = due(case.timeline, None, case.early, case.late)
    assert by_rules(case, trace_of(case.timeline, "gold", steps, onsets)).score == 2.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_who_talks_all_the_time_or_never_gets_no_full_marks(case: Case) -> None:
    onsets = due(case.timeline, None, case.early, case.late)
    usual = Counter(e.text for e in case.timeline.of("assistant")).most_common(1)
    text = usual[0][0] if usual else "Yes."
    seconds = range(case.seconds or 0)
    talk = trace_of(case.timeline, "talk", [Step(t, Response(text)) for t in seconds], onsets)
    still = trace_of(case.timeline, "still", [Step(t, Silence()) for t in seconds], onsets)
    assert by_rules(case, talk).score < 1.0
    if onsets:
        assert by_rules(case, still).score == 0.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_who_names_everything_is_not_right(case: Case) -> None:
    """In the right seconds, but with every name, colour, number and both answers at once."""
    onsets = due(case.timeline, None, case.early, case.late)
    assert case.script is not None
    names = [names[0] for names in case.things]
    names += [word for states in case.states for word in states]
    words = [*names, *COLOURS, "yes", "no", *map(str, range(1, 40))]
    for event in case.timeline.of("assistant"):
        words += [fact.split("|")[0] for fact in (event.rule.facts if event.rule else ())]
    said = Response(", ".join(dict.fromkeys(words)))
    spoken = {o.second for o in onsets if not o.delegation}
    steps = [Step(t, said if t in spoken else Silence()) for t in range(case.seconds or 0)]
    grade = by_rules(case, trace_of(case.timeline, "list", steps, onsets))
    # Small talk and notes have facts that anything may stand beside.
    easy = sum(o.rule is not None and not _bound(case, o) for o in onsets)
    if easy <= len(spoken) // 2 and spoken:
        assert grade.quality < 2


def _bound(case: Case, onset: Onset) -> bool:
    """Whether its text can be told from a list of everything."""
    if onset.rule is None or onset.rule.kind != "key_facts":
        return True
    groups = [*case.things, *case.states, tuple(COLOURS), ("yes", "no")]
    facts = [word for fact in onset.rule.facts for word in fact.split("|")]
    return any(word in group for word in facts for group in groups)


@pytest.mark.parametrize("case", SUITE, ids=lambda case: case.id)
def test_who_misses_the_point_gets_no_full_marks(case: Case) -> None:
    """All gold, and one thing said in each stretch in which silence is the point."""
    onsets = due(case.timeline, None, case.early, case.late)
    gold = dict(enumerate(actions(case.timeline)))
    if not case.quiet or not onsets:
        pytest.skip("silence is not the point of it")
    span = case.quiet[0]
    gold[span[len(span) // 2]] = Response(onsets[0].text)
    steps = [Step(second, action) for second, action in sorted(gold.items())]
    grade = by_rules(case, trace_of(case.timeline, "jumpy", steps, onsets))
    assert max(grade.quality, grade.timing) < 2


@pytest.mark.parametrize("case", DELEGATION, ids=lambda case: case.id)
def test_who_never_hands_over_gets_no_full_marks(case: Case) -> None:
    onsets = due(case.timeline, {}, case.early, case.late)
    gold = actions(case.timeline)
    known = {o.second for o in onsets}
    steps = [
        Step(t, Response(a.note) if isinstance(a, Delegation) else a if t in known else Silence())
        for t, a in enumerate(gold)
    ]
    grade = by_rules(case, trace_of(case.timeline, "keeps", steps, onsets))
    if any(o.delegation for o in onsets):
        assert max(grade.quality, grade.timing) < 2


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
    assert tasks >= 12 and never == 1 and min(delays) == 3 and max(delays) == 40


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
    assert changes(CASES[1:], suite="scenarios") == [
        f"scenarios/{CASES[0].scenario}/{CASES[0].id}.yaml: taken away since the cases were pinned"
    ]
