"""Questions made on the world's footage are right by the world's log."""

from __future__ import annotations

from collections import Counter

import pytest

from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import qa
from data_pipeline.families.texts import answer_rule, content_words, names_a_time
from joyvl_train import content
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth

SEEDS = range(10)


def right(one: Candidate) -> Counter[str]:
    """Each answer is true, and due when it is first known. Counts the directions."""
    truth, timeline = Truth(one.timeline), one.timeline
    queries = {event.id: event for event in timeline.of("user")}
    ways = timeline.meta["directions"]
    assert set(ways) == set(queries) and len(timeline.of("assistant")) == len(queries)
    for answer in timeline.of("assistant"):
        query = queries[answer.answers or ""]
        asked, due = query.second, answer.second
        assert content.right(answer.rule, answer.text, answer.text)
        match ways[query.id]:
            case "present":
                assert due == asked and answer.text == "Yes." and truth.seen(query.text, due)
            case "backward":
                assert due == asked and not truth.seen(answer.text, due)
                gone = [t for t in truth.things if t.gone <= asked]
                last = max(gone, key=lambda t: t.gone)
                meant = truth.meant(answer.text)
                assert meant is not None and meant.fits(last)
            case "forward":
                assert truth.first(answer.text, asked, due + 1) == due > asked
                assert min(t.came for t in truth.things if t.came > asked) == due
    return Counter(ways.values())


def test_questions_in_all_directions_are_right() -> None:
    given = footage("qa", world("alerting", SEEDS, seconds=32))
    with Oracle() as oracle:
        out = through(oracle, given, lambda desk: qa.stages(desk, spacing=8))
        ways = sum(map(right, told(out)), Counter[str]())
    assert len(told(out)) >= 6 and min(ways[way] for way in qa.DIRECTIONS) >= 2
    (first, *_) = told(out)
    stages = [note.stage for note in first.history]
    assert stages == ["pictures", "moments", "ask", "evidence", "check", "enough asked"]


@pytest.mark.parametrize("blind", ["answer_checker", "dense_precheck", ""])
def test_wrong_answers_are_dropped_and_told_of(blind: str) -> None:
    """With both checks all that is left is right; each alone finds some."""
    given = footage("qa", world("alerting", SEEDS, seconds=32))
    yes = {blind: lambda ask: {"reason": "", "verdict": "yes"}} if blind else {}
    with Oracle(errs={"asker": 0.7}, answers=yes) as oracle:
        out = through(oracle, given, lambda desk: qa.stages(desk, spacing=8))
        wrong, asked = oracle.wrong["asker"], oracle.asked["asker"]
    dropped = [one for c in out for one in c.work.get("dropped", ())]
    left = sum(len(c.timeline.of("user")) for c in out)
    assert len(dropped) + left == asked and wrong > 5
    stages = {stage for stage, *_ in dropped}
    assert ("check" in stages) == (blind != "answer_checker")
    assert ("evidence" in stages) or blind == "dense_precheck"
    if not blind:
        for one in told(out):
            right(one)


def test_an_unsure_check_drops_the_question_alone() -> None:
    given = footage("qa", world("alerting", [2, 3], seconds=32))
    unsure = {"answer_checker": lambda ask: {"reason": "Too dark.", "verdict": "unsure"}}
    with Oracle(answers=unsure) as oracle:
        out = through(oracle, given, qa.stages)
    assert {one.status for one in out} == {"rejected"}
    assert set(reasons(out)) == {"enough asked: too little asked"}
    assert {why for one in out for stage, _, why, _ in one.work["dropped"] if stage == "check"} == {
        "unsure"
    }


def drafts(question: str, answer: str, due: int) -> list[list[object]]:
    """What becomes of one draft, for a present question at 5 s."""

    def draft(ask: object) -> dict[str, object]:
        told = {"evidence": "a dog", "question": question, "answer": answer}
        return {**told, "answer_second": due}

    given = footage("qa", world("alerting", [2], seconds=32))
    given[0] = given[0].changed("x", work={"moments": [["present", 5, 5]]})

    def stages(desk: Desk) -> list[tuple[str, object]]:
        return [step for step in qa.stages(desk) if step[0] == "ask"]

    with Oracle(answers={"asker": draft}) as oracle:
        (out,) = through(oracle, given, stages)  # type: ignore[arg-type]
    return list(out.work["dropped"])


@pytest.mark.parametrize(
    ("question", "answer", "due", "reason"),
    [
        ("What is there?", "", 5, "empty text"),
        ("What is there after 5 seconds?", "A dog.", 5, "names a time"),
        ("Is the dog there?", "A dog.", 5, "gives it away"),
        ("What is there?", "A dog.", 6, "not answered at once"),
        ("What is there?", "A dog " * 200, 5, "too long"),
        ("Is it a dog or a cat?", "A dog.", 5, ""),
    ],
)
def test_flaws_that_show_without_a_look(question: str, answer: str, due: int, reason: str) -> None:
    assert [why for _, _, why, _ in drafts(question, answer, due)] == ([reason] if reason else [])


def test_questions_of_a_source_pass_by() -> None:
    given = world("qa", [0, 1])
    with Oracle() as oracle:
        assert through(oracle, given, qa.stages) == given
        assert not oracle.asked


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"directions": ("sideways",)}, {"directions": ()}, {"most": 0}, {"spacing": 2}):
        with pytest.raises(ValueError, match="choose from|too little"):
            qa.stages(Desk(lambda timeline: None), **wrong)  # type: ignore[arg-type]


def test_rules_of_answers() -> None:
    assert answer_rule("There are two.", "en").kind == "number"
    assert answer_rule("No.", "en").facts == ("No",)
    assert answer_rule("Because the light turned green and he went on.", "en").kind == "similarity"
    assert answer_rule("Ein Hund.", "de").kind == "similarity"
    assert content_words("It is on.") == ("on",)
    assert names_a_time("at 0:12") and names_a_time("in 3 seconds") and not names_a_time("3 dogs")
