"""One look at all candidates: near-same clips, footage under several names, benchmarks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline import groups as groups_module
from data_pipeline.apart import Apart, open_apart
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate
from data_pipeline.clip_hash import WORDS, near
from data_pipeline.groups import Groups, near_pairs, on_disk, same_values
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import FOOTAGE, Settled, settle
from data_pipeline.work import StageWork, Workshop
from joyvl_train.config import UserError
from joyvl_train.records import footage_number
from joyvl_train.timeline import Timeline
from tests.data_pipeline.made_corpus import Texture, candidate, files, frames, source, workshop

NONE = Targets()
LONG = "say so when the person in the green coat puts the last cup on the table"


def settled(
    folder: Path,
    found: Iterable[Any],
    targets: Targets = NONE,
    per_part: int = 7,
    shop: Callable[[], Workshop] = workshop,
    apart: Sequence[Apart] = (),
) -> Settled:
    plan = make_plan(found, folder / "plan", per_part, "s")
    work = StageWork(plan, folder / "work", shop, "s")
    run_parts(plan.sizes, work, Local(), folder / "work", progress=False)
    return settle(work, folder / "chosen", targets, apart)


def looks() -> Workshop:
    return Workshop((), frames)


def after(done: Settled) -> dict[str, Candidate]:
    parts = range(len(done.work.plan.parts))
    return {each.id: each for part in parts for each in done.of(part)}


def gone(done: Settled) -> dict[str, tuple[str, str]]:
    return {
        each.id: (each.reason, each.history[-1].detail)
        for each in after(done).values()
        if each.status != "open"
    }


def test_of_near_same_clips_the_smallest_id_stays(tmp_path):
    """Two uploads of one video, with near the same annotation."""
    one = candidate(1, video="videos/1.mp4", question=LONG)
    copy = candidate(2, video="copies/1.mp4", question=LONG + " now")
    other = candidate(3, video="videos/2.mp4", question=LONG)
    first, last = sorted([one, copy], key=lambda each: each.id)
    for order in ([one, copy, other], [other, copy, one]):
        done = settled(tmp_path / str(len(list(tmp_path.iterdir()))), order, shop=looks)
        assert gone(done) == {last.id: ("near-same clip", f"{first.id} stays")}
        assert done.index["dropped"] == {"near-same clip": 1}
        assert done.index["groups"] == 1


def test_other_questions_on_one_video_and_on_its_copy_stay(tmp_path):
    found = [
        candidate(1, video="videos/1.mp4", question="Where does the tall man go?"),
        candidate(2, video="videos/1.mp4", question="How many cups are there?"),
        candidate(3, video="copies/1.mp4", question="What colour is the van?"),
        candidate(4, video="copies/1.mp4", question="Where does it stand?", family="qa"),
        candidate(5, video="videos/1.mp4", question="Where does it stand?"),
        candidate(6, video="copies/1.mp4", question="Where does the tall man go?", time=16.0),
    ]
    done = settled(tmp_path, found, shop=looks)
    assert gone(done) == {}
    names = {each.work[FOOTAGE] for each in after(done).values()}
    smallest = min("videos/1.mp4", "copies/1.mp4", key=footage_number)
    assert names == {smallest}
    assert all(each.history[-1].verdict == "changed" for each in after(done).values())


class Longer:
    """Twelve seconds of another video, then this one: a trimmed copy is its end."""

    def __init__(self, before: str, video: str) -> None:
        self._pieces = (Texture(before, 12), Texture(video, 20))
        self.seconds = 32

    def frames(self, second: int) -> tuple[Any, ...]:
        first, last = self._pieces
        return first.frames(second) if second < 12 else last.frames(second - 12)


class Part(Texture):
    """The seconds of a clip that is a part of its video, which nobody has seen whole."""

    whole = False

    def __init__(self, timeline: Timeline) -> None:
        assert timeline.clip.video and timeline.clip.seconds
        super().__init__(timeline.clip.video, timeline.clip.seconds)
        self._first = timeline.clip.offset

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        return super().frames(self._first + second)


def test_parts_of_videos_are_compared_by_what_they_show(tmp_path):
    def part(number: int, video: str, offset: int) -> Candidate:
        one = candidate(number, video=video, question=LONG, time=9.0)
        clip = replace(one.timeline.clip, offset=offset)
        return replace(one, timeline=replace(one.timeline, clip=clip))

    here, there = part(1, "videos/1.mp4", 400), part(2, "copies/1.mp4", 400)
    before = part(3, "videos/1.mp4", 40)
    first, last = sorted([here, there], key=lambda each: each.id)
    for name, order in {"a": [before, here, there], "b": [there, here, before]}.items():
        shop = partial(Workshop, (), Part)
        done = settled(tmp_path / name, order, shop=shop)
        assert gone(done) == {last.id: ("near-same clip", f"{first.id} stays")}


def test_the_whole_of_a_video_is_compared_whichever_of_its_clips_comes_first(tmp_path):
    """The first clip of a video may be a part of it, of which the whole isn't known."""

    def shown(timeline: Timeline) -> Any:
        return Part(timeline) if timeline.clip.offset else frames(timeline)

    whole = candidate(1, video="videos/1.mp4", time=0.0, until=19.0)
    copy = candidate(2, video="copies/1.mp4", time=0.0, until=19.0, answer="Another one")
    part = candidate(3, video="videos/1.mp4", question=LONG)
    part = replace(
        part,
        timeline=replace(part.timeline, clip=replace(part.timeline.clip, offset=500)),
    )
    for number, order in enumerate(([part, whole, copy], [copy, whole, part])):
        done = settled(tmp_path / str(number), order, shop=partial(Workshop, (), shown))
        assert done.index["groups"] == 1


def test_a_stretch_that_two_videos_share_joins_them(tmp_path):
    def shop() -> Workshop:
        longer = Longer("videos/8.mp4", "copies/1.mp4")
        return Workshop(
            (), lambda t: longer if t.clip.video == "long/1.mp4" else Texture(t.clip.video or "")
        )

    one = candidate(1, video="videos/1.mp4", question=LONG, time=10.0)
    long = candidate(2, video="long/1.mp4", question=LONG, time=22.0, seconds=32)
    elsewhere = candidate(3, video="long/1.mp4", question=LONG, time=4.0, seconds=32)
    done = settled(tmp_path, [one, long, elsewhere], shop=shop)
    first, last = sorted([one, long], key=lambda each: each.id)
    assert gone(done) == {last.id: ("near-same clip", f"{first.id} stays")}
    assert done.index["groups"] == 1
    assert len({each.work.get(FOOTAGE) for each in after(done).values()} - {None}) == 1


def test_footage_of_a_benchmark_is_not_trained_on(tmp_path):
    test = candidate(1, video="videos/1.mp4", question="Is it open?", use="evaluation")
    copy = candidate(2, video="copies/1.mp4", question="Where is the dog?")
    same = candidate(3, video="videos/1.mp4", question="Is it open?")
    other = candidate(4, video="videos/2.mp4", question="Is it open?")
    second = candidate(5, video="videos/3.mp4", question="Who comes?", use="evaluation")
    done = settled(tmp_path, [test, copy, same, other, second], shop=looks)
    assert gone(done) == {
        copy.id: ("footage of a benchmark", "copies/1.mp4 is a benchmark's, or looks like one's"),
        same.id: ("footage of a benchmark", "videos/1.mp4 is a benchmark's, or looks like one's"),
    }


def test_footage_of_another_runs_benchmark_is_not_trained_on(tmp_path):
    """By name, by looks; a guest is kept apart from and no more."""
    tested = candidate(1, video="videos/1.mp4", question="Is it open?", use="evaluation")
    trained = candidate(6, video="videos/4.mp4", question="Is it shut?")
    bench = tmp_path / "bench"
    settled(bench, [tested, trained], shop=looks)
    with pytest.raises(UserError, match=f"apart_from={bench}: is no finished run"):
        open_apart(bench)
    (bench / "finished").write_text("")
    copy = candidate(2, video="copies/1.mp4", question="Where is the dog?")
    same = candidate(3, video="videos/1.mp4", question="Is it open?")
    other = candidate(4, video="videos/2.mp4", question="Is it open?")
    again = candidate(6, video="videos/4.mp4", question="Is it shut?")
    more = candidate(7, video="copies/1.mp4", question="Is it open?", use="evaluation")
    found = [copy, same, other, again, more]
    done = settled(tmp_path / "own", found, shop=looks, apart=[open_apart(bench)])
    assert set(gone(done)) == {copy.id, same.id}
    assert {reason for reason, _ in gone(done).values()} == {"footage of a benchmark"}
    assert done.index["rows"] == 5 and set(after(done)) == {each.id for each in found}
    # One side with the guest, whichever of the two names the group bears.
    names = {name for part in range(1) for name in done.told(part)["groups"].values()}
    assert names == {min("copies/1.mp4", "videos/1.mp4", key=footage_number)}
    assert not gone(settled(tmp_path / "alone", [other, same, again], shop=looks))
    rows = bench / "work" / "00000.rows.jsonl"
    rows.write_text(rows.read_text()[:-9])
    with pytest.raises(UserError, match="part 0 of its work is torn; make that corpus again"):
        open_apart(bench)
    settled(tmp_path / "plain", [trained], shop=looks)
    (tmp_path / "plain" / "finished").write_text("")
    with pytest.raises(UserError, match="holds no clip of a benchmark"):
        open_apart(tmp_path / "plain")


def test_a_benchmarks_files_are_named_as_from_here(tmp_path):
    """Of two runs over other folders, one file has one name, and others of its name have others."""
    for place in ("all/bench/1.mp4", "all/1.mp4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    run = tmp_path / "run"
    tested = [candidate(n, video=f"{n}.mp4", use="evaluation") for n in (1, 2)]
    settled(run, tested, shop=partial(Workshop, ()))
    (run / "finished").write_text("")
    (run / "config.yaml").write_text(f"source:\n  videos: {tmp_path / 'all/bench'}\n")
    (rows,) = open_apart(run, tmp_path / "all").parts()
    assert sorted(row.footage for row in rows) == ["2.mp4", "bench/1.mp4"]


def test_benchmarks_are_not_balanced(tmp_path):
    found = [
        candidate(n, video=f"videos/{n}.mp4", use="evaluation" if n % 2 else "train", family="qa")
        for n in range(20)
    ]
    done = settled(tmp_path, found, Targets(families={"qa": 0.0}, keep=0.0), shop=looks)
    assert {each.use for each in after(done).values() if each.status == "open"} == {"evaluation"}
    assert done.index["dropped"] == {"balance": 10}


def test_what_is_balanced_away_is_kept_with_its_reason(tmp_path):
    done = settled(tmp_path, source(300), Targets(languages={"en": 0.3}, tolerance=0.03))
    opened = [each for each in after(done).values() if each.status == "open"]
    english = sum(each.language == "en" for each in opened)
    assert english / len(opened) == pytest.approx(0.3, abs=0.03)
    (target,) = done.index["targets"]
    assert target["met"] and target["after"] == pytest.approx(english / len(opened))
    balance = [reason for reason, _ in gone(done).values() if reason == "balance"]
    assert len(balance) == done.index["dropped"]["balance"] > 50
    assert len(after(done)) == done.work.plan.candidates


def test_the_choice_does_not_hang_on_the_size_of_parts(tmp_path):
    targets = Targets(languages={"en": 0.3}, tolerance=0.03)
    choices = [
        {
            name: (each.status, each.reason, each.timeline.meta)
            for name, each in after(
                settled(tmp_path / str(size), source(300), targets, size)
            ).items()
        }
        for size in (20, 77)
    ]
    assert choices[0] == choices[1]


def test_a_settled_corpus_is_taken_as_it_is_until_something_changes(tmp_path):
    done = settled(tmp_path, source(60))
    before = files(tmp_path / "chosen")
    (tmp_path / "chosen/00001.json").write_text("{}")
    again = settle(done.work, tmp_path / "chosen", NONE)
    with pytest.raises(UserError, match="00001.json: was changed; delete"):
        list(again.of(1))
    (tmp_path / "chosen/index.json").unlink()
    settle(done.work, tmp_path / "chosen", NONE)
    assert files(tmp_path / "chosen") == before
    other = settle(done.work, tmp_path / "chosen", Targets(silence=0.9))
    assert other.index["targets"] and files(tmp_path / "chosen") != before
    (tmp_path / "work/00002.json").unlink()
    with pytest.raises(UserError, match="part 2 isn't done"):
        settle(done.work, tmp_path / "chosen", NONE)


def test_nothing_open_settles_to_nothing(tmp_path):
    rejected = candidate(1).rejected("read", "no video")
    assert settled(tmp_path / "a", [rejected], Targets(silence=0.5)).index["rows"] == 0
    assert settled(tmp_path / "b", []).index["rows"] == 0


def test_one_id_in_two_parts_is_a_bug(tmp_path):
    def same_name(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for each in candidates:
            yield each
        yield replace(each, id="child")

    with pytest.raises(ValueError, match="candidates of two parts one id"):
        settled(tmp_path, source(30), shop=lambda: Workshop((same_name,)))


def by_hand(hashes: np.ndarray, joined: dict[int, int]) -> list[set[int]]:
    """Groups of items, by comparing all pairs; `joined` are the items of one footage."""
    sets = [{n, joined.get(n, n)} for n in range(len(hashes))]
    for a in range(len(hashes)):
        for b in range(a):
            if near(hashes[a : a + 1], hashes[b : b + 1])[0]:
                sets.append({a, b})
    merged: list[set[int]] = []
    for each in sets:
        apart = [other for other in merged if not other & each]
        merged = [*apart, each.union(*(other for other in merged if other & each))]
    return merged


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40), st.integers(0, 9))
def test_the_groups_are_those_of_all_pairs(tmp_path_factory, found, seed):
    """Hashes that lie around six ones, some of one footage; a small share of bits moved."""
    folder = tmp_path_factory.mktemp("groups")
    rng = np.random.default_rng(seed)
    centres = rng.integers(1, 2**63, (6, WORDS), np.uint64)
    hashes = on_disk(folder / "hashes.npy", np.uint64, len(found), WORDS)
    numbers = on_disk(folder / "numbers.npy", np.uint64, len(found))
    first: dict[int, int] = {}
    joined = {}
    for n, (centre, place) in enumerate(found):
        hashes[n] = centres[centre]
        hashes[n, place % WORDS] ^= np.uint64(1) << np.uint64(place)
        number = 1000 + place if place < 5 else 2000 + n
        numbers[n] = number
        joined[n] = first.setdefault(number, n)
    keys = rng.integers(1, 2**63, len(found), np.uint64)
    groups = Groups(numbers, folder)
    for ones, others in near_pairs(hashes, keys, folder / "band.npy"):
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            groups.join(one, other)
    groups.settle()
    whole = slice(0, len(found))
    roots = groups.roots(whole)
    assert {frozenset(np.flatnonzero(roots == root).tolist()) for root in roots} == {
        frozenset(each) for each in by_hand(hashes, joined)
    }
    for root in set(roots.tolist()):
        mine = np.asarray(numbers)[roots == root]
        assert groups.low(whole)[root] == mine.min()
        assert groups.mixed(whole)[root] == (len(set(mine.tolist())) > 1)


@given(st.lists(st.integers(0, 6), max_size=80), st.integers(1, 20))
@settings(max_examples=30)
def test_equal_values_come_together_whatever_is_held_at_once(found, at_once):
    values = np.array(found, np.uint64)
    order = np.arange(len(found), dtype=np.uint64)[::-1].copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "_AT_ONCE", at_once)
        seen = [
            pair
            for places, equal in same_values(values, order)
            for pair in zip(equal.tolist(), places.tolist(), strict=True)
        ]
    assert sorted(seen) == sorted((v, n) for n, v in enumerate(found) if v)
    runs = [value for n, (value, _) in enumerate(seen) if not n or seen[n - 1][0] != value]
    assert len(runs) == len(set(runs))
    for value in set(runs):
        places = [place for each, place in seen if each == value]
        assert places == sorted(places, reverse=True)


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(groups_module, "_AT_ONCE", 1 << 10)
    peaks = []
    for count in (400, 400, 3200):
        folder = tmp_path / f"{count}-{len(peaks)}"
        plan = make_plan(source(count), folder / "plan", 100, "s")
        work = StageWork(plan, folder / "work", lambda: Workshop(()), "s")
        run_parts(plan.sizes, work, Local(), folder / "work", progress=False)
        tracemalloc.start()
        settle(work, folder / "chosen", Targets(languages={"en": 0.3}))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] * 1.3 + 200_000


def test_a_family_of_its_own_for_each_clip_costs_no_memory(tmp_path):
    """Annotations name families as they like."""
    each = (candidate(n, video=f"videos/{n}.mp4", family=f"family {n}") for n in range(2000))
    plan = make_plan(each, tmp_path / "plan", 500, "s")
    work = StageWork(plan, tmp_path / "work", lambda: Workshop(()), "s")
    run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    tracemalloc.start()
    done = settle(work, tmp_path / "chosen", NONE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not gone(done) and peak < 10 * 2**20


def test_the_side_of_a_group_is_that_of_its_name(tmp_path):
    found = [
        candidate(n, folder, video=f"{folder}/{n}.mp4", question=f"is number {n} there, {folder}")
        for n in range(6)
        for folder in ("videos", "copies")
    ]
    done = settled(tmp_path, found, shop=looks)
    for each in after(done).values():
        name = (each.timeline.clip.video or "").split("/")[1]
        both = {f"videos/{name}", f"copies/{name}"}
        assert each.work[FOOTAGE] == min(both, key=footage_number)
    assert done.index["groups"] == 6
    assert replace(found[0].timeline).meta == {}
