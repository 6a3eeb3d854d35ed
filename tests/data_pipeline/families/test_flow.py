"""All families in one flow, over a model that says anything: nothing lost, doubled or let in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, candidate_from_json, candidate_to_json, id_of
from data_pipeline.desk import Desk
from data_pipeline.families import (
    SPLIT,
    Step,
    alerting,
    chat,
    child_of,
    commentary,
    counting,
    delegation,
    qa,
    share_out,
    split_into,
    splitting,
)
from joyvl_train.timeline import Clip, Timeline, TimelineError, actions, from_json, to_json
from tests.data_pipeline.families.made import footage, pictures, scripted, through, world
from tests.data_pipeline.oracle import Oracle

FAMILIES = ("alerting", "qa", "counting", "commentary", "chat", "delegation")
FAULTS = ("not JSON", "", "{}", b"\x00\xff", (500, {"error": "x"}), (400, {"error": "refused"}))


def every_stage(desk: Desk) -> list[Step]:
    return [
        share_out(FAMILIES),
        *alerting.stages(desk),
        *qa.stages(desk),
        *commentary.stages(desk),
        *chat.stages(desk),
        *counting.stages(desk, woven=0.5),
        *delegation.stages(desk, text=0.3, questions=0.5, meanwhile=True),
    ]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as one:
        yield one


def add_up(given: list[Candidate], out: list[Candidate]) -> None:
    """What comes out is what went in, and what its histories say was made of it."""
    ids, every = {one.id for one in given}, {one.id for one in out}
    assert len(every) == len(out) and ids <= every
    made = Counter(one.work["parent"] for one in out if one.id not in ids)
    assert set(made) <= every and made.total() == len(out) - len(given)
    for one in out:
        told = [note.detail for note in one.history if note.detail.endswith("made of it")]
        if made[one.id] or one.reason == SPLIT:
            assert made[one.id] == sum(int(detail.split()[0]) for detail in told) > 0
        if not one.timeline.events:
            assert one.status != "open", "nothing to tell, and still open"


def sound(out: list[Candidate]) -> None:
    for one in out:
        plain = json.loads(json.dumps(candidate_to_json(one), ensure_ascii=False).encode())
        stored = candidate_from_json(plain)
        assert (stored.id, stored.status, stored.history) == (one.id, one.status, one.history)
        if one.status == "open":
            assert from_json(to_json(one.timeline)) == one.timeline
            assert len(actions(one.timeline)) == one.timeline.clip.seconds
            for note in one.history:
                assert note.verdict in ("kept", "changed")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.4]), st.sampled_from(FAULTS))
def test_a_model_that_says_anything(oracle: Oracle, seed: int, share: float, fault: object) -> None:
    oracle.answers, oracle.seed = scripted(seed), seed
    oracle.faults = {"*": (share, fault)}
    given = [*footage("unlabelled", world("alerting", [100 + seed % 5], seconds=16))]
    given += world("qa", [seed % 7]) + world("alerting", [seed % 7])
    out = through(oracle, given, every_stage)
    add_up(given, out)
    sound(out)
    for one in out:
        if one.status == "unverified":
            assert one.reason in (
                "agent failed", "unparsed", "unsure", "no such second", "agents disagree",
                "contradicts itself",
            )  # fmt: skip


def test_the_whole_flow_is_the_same_again(oracle: Oracle) -> None:
    with Oracle(errs=0.2) as first, Oracle(errs=0.2) as second:
        given = footage("unlabelled", world("alerting", [1], seconds=20)) + world("qa", [3])
        out = [through(one, given, every_stage) for one in (first, second)]
        assert out[0] == out[1]
        assert {one.timeline.family for one in out[0]} >= {*FAMILIES}
        assert through(second, given, every_stage, seed=1) != out[0]


def test_a_server_that_always_fails_lets_nothing_in() -> None:
    for fault in FAULTS:
        with Oracle(faults={"*": (1.0, fault)}) as oracle:
            given = footage("unlabelled", world("alerting", [2], seconds=16))
            out = through(oracle, given, every_stage)
            add_up(given, out)
            assert not [one for one in out if one.status == "open"]
            kept_apart = [one for one in out if one.status == "unverified"]
            assert len(kept_apart) == len(FAMILIES)


def _candidate(events: bool = False) -> Candidate:
    (one,) = world("alerting", [0])
    return one if events else footage("x", [one])[0]


def test_splitting_keeps_the_parent_and_tells_its_end() -> None:
    empty, full = _candidate(), _candidate(events=True)
    child = child_of(empty, "cut", 1, empty.timeline, "first", part=1)
    assert child.work == {"part": 1, "parent": empty.id} and child.history[-1].detail == "first"
    parent, *rest = split_into("cut", empty, [child])
    assert parent.reason == SPLIT and parent.history[-1].detail == "1 made of it"
    assert rest == [child] and child.id not in (empty.id, child_of(empty, "cut", 2, empty.timeline))
    assert split_into("cut", empty, [], none="no part")[0].reason == "no part"
    assert split_into("cut", full, []) == [full]
    assert split_into("cut", full, [child_of(full, "cut", 1, full.timeline)])[0].status == "open"
    with pytest.raises(ValueError, match="have one id"):
        split_into("cut", empty, [child, child])


def test_splitting_counts_what_breaks_and_lets_the_closed_by() -> None:
    def broken(candidate: Candidate) -> list[Candidate]:
        raise TimelineError("too odd", "x")

    name, stage = splitting("cut", lambda one: True, broken)
    closed = _candidate().rejected("a", "b")
    first, second = stage(iter([_candidate(), closed]))
    assert (first.reason, first.history[-1].stage) == ("too odd", name) and second is closed


def test_footage_is_shared_out_among_families() -> None:
    clip = Clip("v", 9.0, video="v.mp4")
    bare = Candidate(id_of("v"), Timeline(clip, "unlabelled", "folder"))
    full = _candidate(events=True)
    _, stage = share_out(("chat", "qa"))
    parent, one, other, last = stage(iter([bare, full]))
    assert parent.reason == SPLIT and last is full
    assert (one.timeline.family, other.timeline.family) == ("chat", "qa")
    assert one.id != other.id and pictures(full.timeline).seconds == full.timeline.clip.seconds
