"""Plans: duplicates, counts, kills, memory."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused, id_of
from data_pipeline.near_text import NEAR_TEXT, SLACK, near_words, said
from data_pipeline.plan import NEAR_SAME_TEXT, SAME_ID, SAME_TEXT, Plan, make_plan, read_plan
from joyvl_train.config import UserError
from tests.data_pipeline.made_corpus import candidate, files, source

ROOT = Path(__file__).resolve().parents[2]


def planned(plan: Plan) -> list[Candidate]:
    return [each for part in plan.parts for each in plan.of(part.number)]


def refused(plan: Plan) -> list[dict]:
    return [json.loads(line) for line in (plan.folder / "refused.jsonl").read_text().splitlines()]


def by_hand(items: list[Candidate | Refused]) -> tuple[list[Candidate], Counter[str]]:
    """What a plan keeps, by comparing each with every other."""
    ids, kept, counts = set(), [], Counter()
    texts: dict[tuple, Candidate] = {}
    for item in items:
        if isinstance(item, Refused):
            counts[item.reason] += 1
            continue
        if item.id in ids:
            counts[SAME_ID] += 1
            continue
        ids.add(item.id)
        told = said(item)
        assert told is not None
        place = (item.use, item.timeline.family, item.timeline.clip.video)
        events = sorted(item.timeline.events, key=lambda e: e.time)
        same = (*place, told.first, told.last, *((e.role, e.text, e.question) for e in events))
        if same in texts:
            counts[SAME_TEXT] += 1
            continue
        texts[same] = item
        if any(place == other_place and near(told, other) for other_place, other, _ in kept):
            counts[NEAR_SAME_TEXT] += 1
            continue
        kept.append((place, told, item))
    return [item for _, _, item in kept], counts


def near(one, other) -> bool:
    first, last = one.first - SLACK, one.last + SLACK
    start, stop = other.first - SLACK, other.last + SLACK
    common, whole = min(last, stop) - max(first, start), max(last, stop) - min(first, start)
    close = common >= whole / 2 and one.numbers == other.numbers
    return bool(one.words) and close and near_words(one.words, other.words, NEAR_TEXT)


TEXTS = [
    "the red car is here",
    "the red car is here!",
    "the car red is here",
    "one 1",
    "one 2",
    "!",
]

items = st.one_of(
    st.builds(lambda n: Refused(f"item {n}", f"reason {n % 2}"), st.integers(0, 3)),
    st.builds(
        lambda n, video, time, text, family, use: candidate(
            n, video=f"{video}.mp4", time=time, question=text, family=family, use=use
        ),
        st.integers(0, 12),
        st.integers(0, 1),
        st.sampled_from([3.0, 4.0, 9.0]),
        st.sampled_from(TEXTS),
        st.sampled_from(["alerting", "qa"]),
        st.sampled_from(["train", "evaluation"]),
    ),
)


@settings(max_examples=60)
@given(st.lists(items, max_size=30), st.integers(1, 7))
def test_a_plan_keeps_what_comparing_all_pairs_keeps(tmp_path_factory, found, per_part):
    plan = make_plan(iter(found), tmp_path_factory.mktemp("plan"), per_part, "s")
    kept, counts = by_hand(found)
    assert planned(plan) == kept
    assert plan.refused == counts
    assert plan.read == len(found) == plan.candidates + plan.refused.total()
    assert (
        [line["reason"] for line in refused(plan)]
        and len(refused(plan)) == counts.total()
        or (not counts)
    )
    assert plan.sizes == [per_part] * (len(kept) // per_part) + (
        [len(kept) % per_part] if len(kept) % per_part else []
    )


@given(st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_what_is_left_of_exact_duplicates_does_not_hang_on_the_order(tmp_path_factory, rng):
    """Of ids, and of texts that are otherwise far apart."""
    found = [candidate(n % 7, question=f"question {n % 7}") for n in range(20)]
    found += [candidate("b", n, question=f"text number {n % 5}") for n in range(15)]
    rng.shuffle(found)
    plan = make_plan(found, tmp_path_factory.mktemp("plan"), 4, "s")
    assert Counter(each.timeline.events[0].text for each in planned(plan)) == Counter(
        [f"question {n}" for n in range(7)] + [f"text number {n}" for n in range(5)]
    )
    assert plan.refused == {SAME_ID: 13, SAME_TEXT: 10}


def test_duplicates_are_kept_with_what_stays(tmp_path):
    long = "say so when the person in the green coat puts the last cup on the table"
    first = candidate(1, question=long)
    again = candidate(2, question=long + " now")
    plan = make_plan([first, again, first, Refused("line 7", "format", "x")], tmp_path, 9, "s")
    near_same, same_id, never = refused(plan)
    assert near_same["reason"] == NEAR_SAME_TEXT and near_same["detail"] == f"{first.id} stays"
    assert near_same["candidate"]["history"][-1]["reason"] == NEAR_SAME_TEXT
    assert near_same["candidate"]["timeline"]["events"][0]["text"] == long + " now"
    assert same_id == {"where": first.id, "reason": SAME_ID, "detail": "met before"}
    assert never == {"where": "line 7", "reason": "format", "detail": "x"}


def test_seconds_are_compared_in_the_videos_time(tmp_path):
    """Clips that begin elsewhere in one video tell of other seconds, or of the same ones."""

    def at(number: int, offset: int, time: float) -> Candidate:
        one = candidate(number, time=time)
        clip = replace(one.timeline.clip, offset=offset)
        return replace(one, timeline=replace(one.timeline, clip=clip))

    first, elsewhere, same = at(1, 0, 15.0), at(2, 300, 15.0), at(3, 10, 5.0)
    plan = make_plan([first, elsewhere, same], tmp_path, 5, "s")
    assert [each.id for each in planned(plan)] == [first.id, elsewhere.id]
    assert plan.refused == {SAME_TEXT: 1}


def test_an_exact_copy_of_one_that_went_names_the_one_that_stays(tmp_path):
    long = "say so when the person in the green coat puts the last cup on the table"
    found = [candidate(n, question=q) for n, q in enumerate((long, long + " now", long + " now"))]
    plan = make_plan(found, tmp_path, 9, "s")
    assert [line["detail"] for line in refused(plan)] == [f"{found[0].id} stays"] * 2


def test_one_that_is_rejected_already_stands_in_no_ones_way(tmp_path):
    rejected = candidate(1).rejected("read", "no video")
    plan = make_plan([rejected, candidate(2)], tmp_path, 9, "s")
    assert [each.status for each in planned(plan)] == ["rejected", "open"]


def test_candidates_without_text_are_told_apart_by_id(tmp_path):
    def bare(n: int) -> Candidate:
        found = candidate(n)
        return Candidate(id_of("bare", n), found.timeline.__class__(found.timeline.clip, "a", "s"))

    plan = make_plan([bare(1), bare(2), bare(1)], tmp_path, 9, "s")
    assert plan.candidates == 2 and plan.refused == {SAME_ID: 1}


def test_a_finished_plan_is_taken_as_it_is(tmp_path):
    def never() -> Iterator[Candidate]:
        raise AssertionError("read again")
        yield candidate(1)

    plan = make_plan(source(50), tmp_path, 8, "made 50")
    assert make_plan(never(), tmp_path, 8, "made 50") == plan == read_plan(tmp_path)
    with pytest.raises(UserError, match="signature 'made 50', now 'made 51'"):
        make_plan(never(), tmp_path, 8, "made 51")
    with pytest.raises(UserError, match="per_part 8, now 9"):
        make_plan(never(), tmp_path, 9, "made 50")
    with pytest.raises(UserError, match="holds no finished plan"):
        read_plan(tmp_path / "none")


def test_half_a_surrogate_pair_and_other_scripts_come_back(tmp_path):
    found = candidate(1, question="ob \ud800 红色 \u2028 da")
    plan = make_plan([found], tmp_path, 3, "s")
    assert planned(plan) == [found]


def test_a_source_that_fails_leaves_no_plan_and_a_second_one_is_whole(tmp_path):
    def failing() -> Iterator[Candidate | Refused]:
        yield from source(60)
        raise RuntimeError("the disk went")

    with pytest.raises(RuntimeError, match="the disk went"):
        make_plan(failing(), tmp_path / "a", 5, "s")
    assert not (tmp_path / "a/index.json").exists()
    make_plan(source(20), tmp_path / "a", 5, "s")
    make_plan(source(20), tmp_path / "b", 5, "s")
    assert files(tmp_path / "a") == files(tmp_path / "b")


SCRIPT = """
import sys, time
from data_pipeline.plan import make_plan
from tests.data_pipeline.made_corpus import source
def slowly():
    for n, each in enumerate(source(1500)):
        if n % 100 == 0: time.sleep(0.02)
        yield each
print("begun", flush=True)
make_plan(slowly(), sys.argv[1], 64, "s")
"""


@pytest.mark.slow
def test_a_plan_that_is_killed_and_started_again_has_the_same_bytes(tmp_path):
    make_plan(source(1500), tmp_path / "whole", 64, "s")
    rng = random.Random(0)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    killed = 0
    for _ in range(8):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    assert killed
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_memory_does_not_grow_with_the_source(tmp_path):
    peaks = []
    for count in (500, 500, 3000):  # the first run fills caches
        tracemalloc.start()
        make_plan(source(count), tmp_path / f"{count}-{len(peaks)}", 100, "s")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] * 1.2 + 100_000
    assert os.path.getsize(tmp_path / "3000-2" / "00000.jsonl") > 10_000


def test_videos_that_change_are_told_of_before_anything_goes_on(tmp_path):
    root = tmp_path / "clips"
    (root / "videos").mkdir(parents=True)
    made = [candidate(n, video=f"videos/{n}.mp4") for n in range(4)]
    for n in range(3):  # the last one isn't there; frames may come later
        (root / f"videos/{n}.mp4").write_bytes(b"abc")

    def again():
        return make_plan(iter(made), tmp_path / "plan", 2, "made", root=root)

    first = again()
    assert again() == first
    video = root / "videos/1.mp4"
    seen = video.stat()
    video.write_bytes(b"abcd")
    with pytest.raises(UserError, match=r"videos/1.mp4: has changed since .*\(3 bytes of .*now 4"):
        again()
    video.write_bytes(b"xyz")
    os.utime(video, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1_000_000_000))
    with pytest.raises(UserError, match=r"videos/1.mp4: has changed since"):
        again()
    video.unlink()
    with pytest.raises(UserError, match=r"videos/1.mp4: is gone since .*now not there\); bring"):
        again()
    video.write_bytes(b"abc")
    os.utime(video, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert again() == first
