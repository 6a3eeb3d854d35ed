"""A whole corpus, from a source to Parquet shards: what is in them, counts, workers, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.admit import Admission
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate, Refused
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import OpenFrames, finish, writing
from joyvl_train.config import UserError
from joyvl_train.corpus import open_corpus
from joyvl_train.records import StreamLabels
from joyvl_train.shards import check_hashes, read_shards
from joyvl_train.timeline import Clip, Event, Timeline
from tests.data_pipeline.made_corpus import SECONDS, SlowShop, Texture, candidate, files, source
from tests.data_pipeline.made_corpus import frames as textures

ROOT = Path(__file__).resolve().parents[2]
TARGETS = Targets(languages={"en": 0.3}, tolerance=0.05)


def cut_short(timeline: Timeline) -> Texture:
    """Pictures of which some end before what is said, as those of a broken video do."""
    shown = textures(timeline)
    if timeline.events[-1].text.startswith("b"):
        shown.seconds = 10
    return shown


def open_cut_short():
    return cut_short


def made(
    folder: Path,
    count: int,
    per_part: int,
    workers: int = 1,
    wait: float = 0.0,
    open_frames: OpenFrames | None = open_cut_short,
) -> Admission:
    """A corpus of `count` items, or what is missing of it."""
    plan = make_plan(source(count), folder / "plan", per_part, f"made {count}")
    work = StageWork(plan, folder / "work", SlowShop(wait), "judge 1")
    run_parts(plan.sizes, work, Local(workers), folder / "work", progress=False)
    done = settle(work, folder / "chosen", TARGETS)
    admission = writing(done, folder / "corpus", folder / "rejects", open_frames, "as they are")
    run_parts(plan.sizes, admission, Local(workers), folder / "rejects", progress=False)
    finish(admission)
    return admission


def small(folder: Path, items: list[Candidate | Refused], shop: Workshop | None = None):
    """A corpus of these items, without targets."""
    plan = make_plan(items, folder / "plan", 3, "small")
    work = StageWork(plan, folder / "work", lambda: shop or Workshop((), textures), "small")
    run_parts(plan.sizes, work, Local(), folder / "work", progress=False)
    done = settle(work, folder / "chosen", Targets())
    admission = writing(done, folder / "corpus", folder / "rejects", open_textures, "s")
    run_parts(plan.sizes, admission, Local(), folder / "rejects", progress=False)
    return admission, finish(admission)


def open_textures():
    return textures


def labels(folder: Path) -> list[StreamLabels]:
    found = []
    for record in read_shards(folder / "corpus"):
        assert isinstance(record, tuple)
        found.append(record[0])
    return found


def test_a_shard_holds_what_is_known_of_each(tmp_path):
    long = replace(candidate(1), summaries=((0, 9, "Nothing yet."),), licence="CC BY 4.0")
    long = long.kept("look", "seen", "looker@1f0c33a9")
    _, index = small(tmp_path, [long, candidate(2, video="videos/2.mp4", use="evaluation")])
    assert (index["records"], index["rejected"]) == (2, {})
    (first, pictures), (second, _) = read_shards(tmp_path / "corpus")
    assert isinstance(first, StreamLabels) and isinstance(second, StreamLabels)
    assert (first.id, first.timeline, first.licence) == (long.id, long.timeline, "CC BY 4.0")
    assert [(s.start, s.stop, s.text) for s in first.summaries] == [(0, 9, "Nothing yet.")]
    assert first.footage == "videos/0.mp4" and first.language == "en"
    assert first.history[0]["agent"] == "looker@1f0c33a9"
    assert (first.use, second.use) == ("train", "evaluation")
    assert pictures is not None and pictures.seconds == SECONDS
    assert pictures.frames(3)[0].size == (48, 32)
    assert len(open_corpus(tmp_path / "corpus")) == 2


def test_copies_of_a_video_bear_one_name(tmp_path):
    items = [
        candidate(n, video=f"{folder}/7.mp4", question=f"What is number {n}?")
        for n, folder in enumerate(("videos", "copies"))
    ]
    small(tmp_path, items)
    assert len({each.footage for each in labels(tmp_path)}) == 1
    assert len({each.timeline.clip.video for each in labels(tmp_path)}) == 2


def test_what_a_record_says_of_its_footage_moves_it_to_no_side(tmp_path):
    """Its meta comes from outside, and is kept as it is."""
    one = candidate(1)
    told = replace(one.timeline, meta={"footage": "videos/elsewhere.mp4"})
    small(tmp_path, [replace(one, timeline=told)])
    (label,) = labels(tmp_path)
    assert (label.footage, label.timeline.meta) == ("videos/0.mp4", told.meta)


def test_what_cannot_be_written_is_rejected_by_its_name(tmp_path):
    beyond = replace(candidate(1), summaries=((0, 99, "Much."),))
    items = [beyond, candidate(2, question="Where?", video="videos/2.mp4")]
    admission, index = small(tmp_path, items)
    assert (index["records"], index["rejected"]) == (1, {"past the end": 1})
    (line,) = (tmp_path / "corpus/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["item"] == beyond.id
    (rejected,) = admission.rejected(0)
    assert (rejected.id, rejected.history[-1].stage, rejected.reason) == (
        beyond.id,
        "write",
        "past the end",
    )


def test_annotations_alone_make_a_corpus_too(tmp_path):
    made(tmp_path, 60, 30, open_frames=None)
    records = list(read_shards(tmp_path / "corpus"))
    assert records and all(isinstance(r, tuple) and r[1] is None for r in records)


@st.composite
def items(draw: st.DrawFn) -> list[Candidate | Refused]:
    """Items of all fates: refused, doubled, of broken videos, past the pictures' end."""
    found: list[Candidate | Refused] = []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["plain", "plain", "refused", "double", "broken", "late"]))
        name = draw(st.integers(0, 4))
        if kind == "refused":
            found.append(Refused(f"item {number}", "shape"))
        elif kind == "double" and found:
            found.append(found[draw(st.integers(0, len(found) - 1))])
        else:
            video = "broken" if kind == "broken" else f"videos/{name}.mp4"
            at = 24.0 if kind == "late" else float(draw(st.integers(0, 19)))
            clip = Clip(f"clip {number}", 30.0 if kind == "late" else None, video=video)
            event = Event("a", at, "assistant", draw(st.sampled_from(["Now.", "Here it is."])))
            timeline = Timeline(clip, "alerting", "made", (event,))
            found.append(replace(candidate(number), timeline=timeline))
    return found


def verdicts(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """By the id: some are rejected or unverified, some become two."""
    for each in candidates:
        fate = int(each.id[:2], 16) % 8
        if each.status != "open" or fate > 3:
            yield each
        elif fate == 0:
            yield each.rejected("look", "not seen")
        elif fate == 1:
            yield each.unverified("look", "no answer")
        else:
            yield each.kept("look")
            yield replace(each, id=each.id + "b", language="de")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found=items())
def test_every_item_is_written_or_kept_with_its_reason(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("corpus")
    admission, index = small(folder, found, Workshop((verdicts,), textures))
    plan, work = admission.settled.work.plan, admission.settled.work
    refused = (folder / "plan/refused.jsonl").read_text().splitlines()
    assert len(found) == plan.read == plan.candidates + len(refused)
    parts = range(len(plan.parts))
    worked = [each.id for part in parts for each in work.of(part)]
    assert {each.id for part in parts for each in plan.of(part)} <= set(worked)
    written = [each.id for each in labels(folder)]
    rejected = [each for part in parts for each in admission.rejected(part)]
    assert sorted([*written, *(each.id for each in rejected)]) == sorted(worked)
    assert all(each.reason and each.status != "open" for each in rejected)
    assert len(set(written)) == len(written) == index["records"]
    reasons = Counter(each.reason for each in rejected if each.history[-1].stage == "write")
    assert index["rejected"] == reasons
    funnel = admission.funnel()
    assert funnel.read == len(worked) + len(refused) == funnel.status.total()
    assert funnel.whole.clips == len(written)


def test_a_finished_corpus_is_left_as_it_is(tmp_path):
    made(tmp_path, 150, 30)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    whole = files(tmp_path)

    def never():
        raise AssertionError("nothing is opened")

    made(tmp_path, 150, 30, open_frames=never)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert files(tmp_path) == whole and not check_hashes(tmp_path / "corpus")


def test_lost_files_are_written_again_and_the_others_are_not(tmp_path):
    admission = made(tmp_path, 150, 30)
    whole = files(tmp_path)
    (tmp_path / "corpus/shard-00002.parquet").unlink()
    (tmp_path / "rejects/00001.jsonl").unlink()
    assert [admission.done(part) for part in range(5)] == [True, False, False, True, True]
    kept = (tmp_path / "corpus/shard-00003.parquet").stat().st_mtime_ns
    made(tmp_path, 150, 30)
    assert files(tmp_path) == whole
    assert (tmp_path / "corpus/shard-00003.parquet").stat().st_mtime_ns == kept


def test_a_shard_that_is_whole_is_taken_without_opening_a_video(tmp_path):
    admission, _ = small(tmp_path, [candidate(1), replace(candidate(2), summaries=((0, 99, "M"),))])
    whole = files(tmp_path)
    for name in ("corpus/index.json", "corpus/shard-00000.parquet", "corpus/rejects.jsonl"):
        (tmp_path / name).unlink()
    admission(0, lambda count: None)
    for left in (tmp_path / "rejects").glob("0*"):
        left.unlink()

    def never():
        return lambda timeline: pytest.fail("a video was opened")

    admission.write.open_frames = never  # type: ignore[attr-defined]
    admission.write._frames = None  # type: ignore[attr-defined]
    assert admission.write.done(0) and not admission.done(0)
    admission(0, lambda count: None)
    finish(admission)
    assert files(tmp_path) == whole


def test_rejects_that_a_kill_took_come_in_the_same_order_beside_a_shard_that_is_there(tmp_path):
    unbroken = made(tmp_path / "unbroken", 150, 30)
    here = tmp_path / "killed"
    plan = make_plan(source(150), here / "plan", 30, "made 150")
    work = StageWork(plan, here / "work", SlowShop(0.0), "judge 1")
    run_parts(plan.sizes, work, Local(), here / "work", progress=False)
    done = settle(work, here / "chosen", TARGETS)
    killed = writing(done, here / "corpus", here / "rejects", open_cut_short, "as they are")
    for part in range(len(plan.parts)):
        killed(part, lambda count: None)
        for ending in ("json", "jsonl"):
            killed.path(part, ending).unlink()
        assert killed.write.done(part) and not killed.done(part)
        killed(part, lambda count: None)
    finish(killed)
    assert unbroken.funnel().stages["write"].rejected  # as do others, before them
    assert files(here) == files(tmp_path / "unbroken")


def test_another_corpus_is_refused(tmp_path):
    admission = made(tmp_path, 30, 30)
    other = writing(
        admission.settled, tmp_path / "corpus", tmp_path / "r", open_textures, "smaller"
    )
    with pytest.raises(UserError, match="other settings; delete it, or"):
        run_parts([30], other, Local(), tmp_path / "r", progress=False)


def test_a_corpus_is_not_finished_before_its_parts(tmp_path):
    admission = made(tmp_path, 30, 30)
    other = writing(admission.settled, tmp_path / "new", tmp_path / "r", open_textures, "smaller")
    with pytest.raises(UserError, match="part 0 isn't written"):
        finish(other)


SCRIPT = """
import sys
from pathlib import Path
from tests.data_pipeline.test_write import made
if __name__ == "__main__":
    print("begun", flush=True)
    made(Path(sys.argv[1]), 300, 40, int(sys.argv[2]), 0.002)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_anywhere_and_started_again_the_bytes_are_the_same(tmp_path, workers):
    made(tmp_path / "whole", 300, 40)
    whole = files(tmp_path / "whole", "costs", "failed")
    assert len(whole) > 30
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "killed"), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    rng = random.Random(workers)
    killed = 0
    for _ in range(20):
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.8))
            own = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            children = own.read_text().split() if own.exists() else []
            if children and rng.random() < 0.5:  # a worker first: its part is begun again
                os.kill(int(rng.choice(children)), signal.SIGKILL)
                time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    assert killed
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert files(tmp_path / "killed", "costs", "failed") == whole


@pytest.mark.slow
def test_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    for workers in (1, 3):
        made(tmp_path / str(workers), 150, 30, workers)
    one, three = (files(tmp_path / name, "costs", "failed") for name in "13")
    assert one == three and len(one) > 20
