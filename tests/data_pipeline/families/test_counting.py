"""Counts of what is in the world's footage are those of the world's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import SPLIT, Step, counting
from joyvl_train import content
from tests.data_pipeline.answers import ANSWERS, Ask
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth

SEEDS = range(8)


def given() -> list[Candidate]:
    return footage("counting", world("counting", SEEDS, kind="arrivals", seconds=24))


def stages(**settings: Any) -> Callable[[Desk], list[Step]]:
    return lambda desk: counting.stages(desk, **{"woven": 0.0, **settings})


def right(one: Candidate) -> None:
    truth, timeline = Truth(one.timeline), one.timeline
    thing, seconds = timeline.meta["thing"], truth.seconds
    queries = {event.id: event for event in timeline.of("user")}
    said = {e.second: content.numbers(e.text)[0] for e in timeline.of("assistant")}
    assert all(content.right(e.rule, e.text, e.text) for e in timeline.of("assistant"))
    if timeline.meta["way"] == "sum":
        assert set(said) == {query.second for query in queries.values()}
        for second, number in said.items():
            assert number == len(truth.comings(thing, 0, second + 1))
        return
    (query,) = queries.values()
    comings = truth.comings(thing, 1, seconds)
    assert query.second < comings[0]
    assert said == {s: sum(t <= s for t in comings) for s in set(comings)}


@pytest.mark.parametrize("sums", [0.0, 1.0])
def test_counts_are_right(sums: float) -> None:
    with Oracle() as oracle:
        out = through(oracle, given(), stages(sums=sums))
    made = told(out)
    assert len(made) >= 5
    for one in made:
        right(one)
    ways = {one.timeline.meta["way"] for one in made}
    assert ways == {"running count"} if not sums else "sum" in ways
    assert set(reasons(out)) <= {f"things: {SPLIT}", "reappearance: nothing to count"}
    assert [note.stage for note in made[0].history] == [
        "pictures", "reappearance", "things", "seconds", "agreement", "questions",
    ]  # fmt: skip


def test_a_pass_that_lies_is_found_out_by_the_other() -> None:
    with Oracle(errs={"second_labeller": 0.5}) as oracle:
        out = through(oracle, given(), stages(off=0))
        assert oracle.wrong["second_labeller"]
    found = reasons(out)
    assert found["agreement: passes disagree"] + found["seconds: contradicts itself"] >= 3
    with Oracle(errs={"reappearance_filter": 1.0}) as oracle:
        out = through(oracle, given(), stages(off=0))
    for one in told(out):
        right(one)


def labelled(answer: dict[str, Any]) -> Candidate:
    """A clip whose fifth second is labelled as told."""

    def label(ask: Ask) -> Any:
        if ask.fields["second"] == 5:
            return {"reason": "", "verdict": "yes", **answer}
        return ANSWERS["second_labeller"](ask)

    with Oracle(answers={"second_labeller": label}) as oracle:
        return through(oracle, given()[:1], stages())[-1]


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ({"visible": 1, "new": 2}, "unverified", "contradicts itself"),
        ({"visible": 400, "new": 0}, "rejected", "too many at once"),
        ({"visible": 1, "new": 0, "verdict": "unsure"}, "unverified", "unsure"),
        ({"visible": 1, "new": 0, "verdict": "no"}, "unverified", "unsure"),
        ({"visible": 8, "new": 8}, "rejected", "passes disagree"),
    ],
)
def test_one_second_that_can_not_be_told(answer: dict[str, Any], status: str, reason: str) -> None:
    one = labelled(answer)
    assert (one.status, one.reason) == (status, reason)


def test_kinds_that_can_not_be_counted() -> None:
    kinds = [
        {"thing": "a flag.", "seconds": [3, 9]},
        {"thing": "the flag", "seconds": [3, 9]},
        {"thing": "", "seconds": [3, 9]},
        {"thing": "them", "seconds": [3, 9]},
        {"thing": "a car every 5 seconds", "seconds": [3, 9]},
        {"thing": "a dog", "seconds": [3, 3, 900]},
        {"thing": "a cat", "seconds": [3, 9]},
    ]
    found = {"reason": "", "verdict": "yes", "things": kinds}
    with Oracle(answers={"reappearance_filter": lambda ask: found}) as oracle:
        parent, *children = through(oracle, given()[:1], stages(most_things=1))
    assert (parent.reason, parent.history[-1].detail) == (SPLIT, "7 made of it")
    assert [one.reason for one in children[1:]] == [
        "proposed twice", "empty text", "too generic", "names a time", "comes once", "too many",
    ]  # fmt: skip
    assert children[0].work["thing"] == {"thing": "a flag", "seconds": [3, 9]}


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"ways": ("never",)}, {"ways": ()}, {"sums": 2.0}, {"woven": -1.0}, {"least": 0}):
        with pytest.raises(ValueError, match="choose from|wrong"):
            counting.stages(Desk(lambda timeline: None), **wrong)  # type: ignore[arg-type]
