"""The stages on parts: what is kept of every candidate, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.candidates import Candidate, candidate_to_json
from data_pipeline.clip_hash import clip_hash
from data_pipeline.funnel import Funnel, merged
from data_pipeline.parts import Local, PartsError, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.work import StageWork, Workshop, shown_span
from joyvl_train.timeline import Clip
from tests.data_pipeline.made_corpus import (
    SECONDS,
    Texture,
    candidate,
    files,
    frames,
    judge,
    source,
    workshop,
)


def worked(folder: Path, count: int, per_part: int, workers: int = 1) -> StageWork:
    plan = make_plan(source(count), folder / "plan", per_part, f"made {count}")
    work = StageWork(plan, folder / "work", workshop, "judge 1")
    run_parts(plan.sizes, work, Local(workers), folder / "work", progress=False)
    return work


def test_every_candidate_comes_out_with_its_history(tmp_path):
    work = worked(tmp_path, 120, 25)
    plan = work.plan
    for part in plan.parts:
        before = list(plan.of(part.number))
        after = list(work.of(part.number))
        assert [each.id for each in after] == [each.id for each in before]
        assert after == list(judge(iter(before)))
        rows = list(work.rows(part.number))
        assert [row.id for row in rows] == [each.id for each in after if each.status == "open"]
        told = work.told(part.number)
        assert told is not None
        assert (told["candidates"], told["open"]) == (len(after), len(rows))
        counted = Funnel()
        for each in after:
            counted.add(each)
        assert Funnel.from_json(told["funnel"]) == counted


def test_the_bytes_are_the_same_whatever_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        worked(tmp_path / str(workers), 120, 25, workers)
    one, two = (files(tmp_path / name, "costs", "failed") for name in "12")
    assert one == two and len(one) > 12


def test_finished_parts_are_left_alone_and_changed_ones_done_anew(tmp_path):
    work = worked(tmp_path, 60, 20)
    before = {name: (tmp_path / "work" / name).stat().st_mtime_ns for name in ("00000.jsonl",)}
    assert worked(tmp_path, 60, 20).done(0)
    assert (tmp_path / "work/00000.jsonl").stat().st_mtime_ns == before["00000.jsonl"]
    other = StageWork(work.plan, tmp_path / "work", workshop, "judge 2")
    assert not other.done(0)
    with (tmp_path / "work/00001.rows.jsonl").open("a") as file:
        file.write("{}\n")
    (tmp_path / "work/00002.jsonl").unlink()
    assert [work.done(part) for part in range(3)] == [True, False, False]
    whole = files(tmp_path / "work", "costs", "failed")
    assert worked(tmp_path, 60, 20).done(1)
    assert files(tmp_path / "work", "costs", "failed") != whole


def test_rows_tell_of_what_is_compared(tmp_path):
    work = worked(tmp_path, 40, 50)
    opened = {each.id: each for each in work.of(0)}
    seen = set()
    for row in work.rows(0):
        each = opened[row.id]
        assert row.footage == each.timeline.clip.video
        assert (row.family, row.language, row.use) == (each.timeline.family, each.language, "train")
        assert row.seconds == SECONDS
        answer = each.timeline.events[1]
        assert row.spoken == (1 if answer.until is None else len(answer.held_seconds))
        video = Texture(row.footage)
        assert (row.whole == clip_hash(video, 0, SECONDS)).all()
        stretch = shown_span(each.timeline, SECONDS)
        seen.add(stretch is None)
        expected = np.zeros_like(row.whole) if stretch is None else clip_hash(video, *stretch)
        assert (row.span == expected).all()
    assert False in seen


@pytest.mark.parametrize(
    ("time", "until", "seconds", "stretch"),
    [
        (5.0, None, 60, (2, 10)),
        (0.0, None, 60, (0, 8)),
        (59.5, None, 60, (52, 60)),
        (10.0, 30.5, 60, (10, 31)),
        (5.0, 50.0, 60, None),  # most of the clip
        (5.0, None, 9, None),
        (0.0, None, 1, None),
    ],
)
def test_the_stretch_that_an_annotation_tells_of(time, until, seconds, stretch):
    timeline = candidate("x", time=time, until=until, seconds=seconds).timeline
    assert shown_span(timeline, seconds) == stretch


def test_pictures_that_cannot_be_had_reject_and_scenes_have_none(tmp_path):
    broken = candidate(1, video="nowhere")
    scene = candidate(2)
    scene = replace(
        scene, timeline=replace(scene.timeline, clip=Clip("s", 20.0, scene={"seed": 1}))
    )
    plan = make_plan([broken, scene, candidate(3)], tmp_path / "plan", 9, "s")
    work = StageWork(plan, tmp_path / "work", lambda: Workshop((), frames), "none")
    run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    first, *others = work.of(0)
    assert (first.status, first.history[-1].stage) == ("rejected", "pictures")
    assert first.reason == "unreadable file"
    assert [each.status for each in others] == ["open", "open"]
    rows = list(work.rows(0))
    assert not rows[0].whole.any() and rows[1].whole.any()


def test_the_length_of_a_clip_is_taken_from_its_pictures(tmp_path):
    unknown, late = candidate(1), candidate(2, time=25.0, seconds=30.0)
    clip = replace(unknown.timeline.clip, duration=None)
    unknown = replace(unknown, timeline=replace(unknown.timeline, clip=clip))
    plan = make_plan([unknown, late, candidate(3, time=9.0)], tmp_path / "plan", 9, "s")
    work = StageWork(plan, tmp_path / "work", lambda: Workshop((), frames), "none")
    run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    found, past, same = work.of(0)
    assert found.timeline.clip.duration == SECONDS and found.history[-1].verdict == "changed"
    assert (past.status, past.reason) == ("rejected", "past the end")
    assert not same.history
    assert [row.seconds for row in work.rows(0)] == [SECONDS, SECONDS]


def lose_one(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    next(candidates, None)
    yield from candidates


def double_one(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    for each in candidates:
        yield each
    yield each


@pytest.mark.parametrize(
    ("stage", "message"),
    [(lose_one, "the stages lost 1 candidates"), (double_one, "gave candidate .* twice")],
)
def test_a_stage_that_loses_or_doubles_candidates_is_a_bug(tmp_path, stage, message):
    plan = make_plan(source(20), tmp_path / "plan", 50, "s")
    work = StageWork(plan, tmp_path / "work", lambda: Workshop((stage,)), "bad")
    with pytest.raises(PartsError, match=message):
        run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    assert not work.done(0)
    assert not list((tmp_path / "work").glob("*.jsonl*"))


def test_a_stage_may_add_candidates(tmp_path):
    def cut(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for each in candidates:
            yield each.rejected("cut", "cut in two")
            yield replace(each, id=each.id + "a")
            yield replace(each, id=each.id + "b")

    plan = make_plan(source(10), tmp_path / "plan", 50, "s")
    work = StageWork(plan, tmp_path / "work", lambda: Workshop((cut,)), "cut")
    run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    assert len(list(work.of(0))) == 3 * plan.candidates
    assert len(list(work.rows(0))) == 2 * plan.candidates


@dataclass
class Asks:
    """Counts its calls, as an agent does."""

    calls: Counter[str] = field(default_factory=Counter)

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for each in candidates:
            self.calls["calls"] += 1
            yield each


def test_costs_are_kept_apart_and_add_up(tmp_path):
    plan = make_plan(source(50), tmp_path / "plan", 20, "s")

    def open_shop() -> Workshop:
        asks = Asks()
        return Workshop((asks,), spent=lambda: {"asker": asks.calls})

    work = StageWork(plan, tmp_path / "work", open_shop, "asks")
    run_parts(plan.sizes, work, Local(), tmp_path / "work", progress=False)
    assert work.spent() == {"asker": {"calls": plan.candidates}}
    (second,) = (tmp_path / "work/costs").glob("00001.*")
    assert json.loads(second.read_text()) == {"asker": {"calls": 20}}


def test_a_funnel_adds_up_part_by_part(tmp_path):
    work = worked(tmp_path, 150, 40)
    whole = Funnel()
    for part in work.plan.parts:
        for each in work.of(part.number):
            whole.add(each)
    tolds = [work.told(part.number) for part in work.plan.parts]
    sums = merged(told["funnel"] for told in tolds if told is not None)
    assert sums == whole and json.loads(json.dumps(sums.to_json())) == whole.to_json()
    sums.add_plan(work.plan)
    assert sums.read == 150 == sums.status.total()
    stage = sums.stages["judge"]
    assert stage.entered == work.plan.candidates
    assert stage.entered == (
        stage.kept + stage.changed + stage.rejected.total() + stage.unverified.total()
    )
    assert stage.rejected.total() and stage.unverified["no answer"] and stage.changed
    assert (
        sums.whole.clips == sums.status["open"] == sum(t.clips for t in sums.by["family"].values())
    )
    assert sums.whole.silence == 1 - sums.whole.spoken_seconds / (SECONDS * sums.whole.clips)


def test_a_stage_is_counted_by_its_last_verdict():
    funnel = Funnel()
    funnel.add(candidate(1).changed("a").kept("a").kept("b"))
    funnel.add(candidate(2).kept("a").changed("a"))
    funnel.add(candidate(3).changed("a").rejected("a", "late"))
    stage = funnel.stages["a"]
    assert (stage.entered, stage.kept, stage.changed, stage.rejected) == (3, 0, 2, {"late": 1})


def test_a_line_that_was_changed_by_hand_is_named(tmp_path):
    work = worked(tmp_path, 10, 50)
    path = tmp_path / "work/00000.jsonl"
    path.write_text(json.dumps(candidate_to_json(candidate(1))) + "\n{oops\n")
    with pytest.raises(ValueError, match="00000.jsonl line 2 is no JSON"):
        list(work.of(0))
