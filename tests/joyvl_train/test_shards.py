"""Corpus shards, and what `data.path` opens."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from joyvl_train import shard_file
from joyvl_train.actions import Response
from joyvl_train.corpus import open_corpus
from joyvl_train.frames import FrameError, ImageFrames, encode, open_video
from joyvl_train.memory import Summary
from joyvl_train.published import to_chat
from joyvl_train.records import RecordError, Rejects, StreamLabels, TurnSample, settle
from joyvl_train.shards import (
    CorpusError,
    ShardWriter,
    check_hashes,
    read_index,
    read_shards,
    write_shards,
)
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError, actions


class Drawn:
    """Frames of one grey each; `bad` is a second that can't be had, the first ones may be empty."""

    def __init__(self, seconds: int, rate: int = 2, empty: int = 0, bad: int | None = None) -> None:
        self.seconds = seconds
        self.rate = rate
        self.empty = empty
        self.bad = bad

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        if second == self.bad:
            raise FrameError("damaged", f"second {second}")
        slots = range(second * self.rate, (second + 1) * self.rate)
        return tuple(Image.new("RGB", (16, 12), (k * 8,) * 3) for k in slots if k >= self.empty)


def grey(image: Image.Image) -> int:
    return round(np.asarray(image).mean() / 8)


def timeline(number: int, seconds: int | None = 4, at: float = 2.0) -> Timeline:
    events = (Event("r", at, "assistant", f"Answer {number}."),)
    duration = None if seconds is None else float(seconds)
    return Timeline(Clip(f"clip {number}", duration), "qa", "made", events, meta={"n": number})


def labels(number: int, seconds: int | None = 4, at: float = 2.0) -> StreamLabels:
    return StreamLabels(timeline(number, seconds, at))


def turn(number: int) -> TurnSample:
    images = (Image.new("RGB", (20, 10), (200, 0, 0)), Image.new("L", (8, 8), 40))
    return TurnSample(f"t{number}", "Which colour?", "Red.", images, "Earlier: a dog.", "made")


def records(count: int):
    """Streams, annotations alone and turn-based samples by turns."""
    for n in range(count):
        yield [(labels(n), Drawn(4)), turn(n), (labels(n), None)][n % 3]


def test_records_go_through_shards_unchanged(tmp_path):
    index = write_shards(records(8), tmp_path, per_shard=3)
    assert (index["records"], index["consumed"], index["rejected"]) == (8, 8, {})
    assert index["kinds"] == {"stream": 5, "turn": 3}
    assert [shard["records"] for shard in index["shards"]] == [3, 3, 2]
    assert check_hashes(tmp_path) == []
    for n, (was, now) in enumerate(zip(records(8), read_shards(tmp_path), strict=True)):
        if isinstance(was, TurnSample):
            assert (now.id, now.question, now.answer) == (was.id, was.question, was.answer)
            assert (now.context, now.source, now.weights) == ("Earlier: a dog.", "made", "turn")
            assert [image.size for image in now.images] == [(20, 10), (8, 8)]
            assert np.asarray(now.images[0])[5, 5, 0] == pytest.approx(200, abs=3)
            continue
        assert now[0].timeline == was[0].timeline, n
        assert now[0].id == now[0].footage == f"clip {n}", "filled in"
        if was[1] is None:
            assert now[1] is None
            continue
        assert now[1].seconds == 4
        assert [grey(i) for t in range(4) for i in now[1].frames(t)] == list(range(8))
        with pytest.raises(IndexError):
            now[1].frames(4)


def test_a_clip_that_ends_before_its_footage_holds_no_later_picture(tmp_path):
    drawn = Drawn(5, bad=3)  # a picture that is not the clip's can't spoil it either
    index = write_shards([(labels(0, 3), drawn)], tmp_path)
    assert (index["records"], index["rejected"]) == (1, {})
    ((read, frames),) = read_shards(tmp_path)
    assert frames is not None and read.timeline.clip.seconds == frames.seconds == 3
    assert [grey(i) for t in range(3) for i in frames.frames(t)] == list(range(6))


def test_held_pictures_are_stored_once_and_missing_ones_stay_missing(tmp_path):
    class Still(Drawn):
        def frames(self, second):
            return () if second == 0 else (Image.new("RGB", (8, 8), (80,) * 3),) * 2

    write_shards([(labels(0, 50), Still(50))], tmp_path)
    (row,) = pq.read_table(tmp_path / "shard-00000.parquet").to_pylist()
    assert len(row["images"]) == 1 and row["image_index"] == [[]] + [[0, 0]] * 49
    ((_, frames),) = read_shards(tmp_path)
    assert [len(frames.frames(t)) for t in range(50)] == [0] + [2] * 49


def test_jpegs_of_a_cached_video_are_not_encoded_again(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(15):
            picture = np.full((32, 32, 3), 10 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    video = open_video(tmp_path / "v.mp4", 2, cache_dir=tmp_path / "c")
    write_shards([(labels(0, 3), video)], tmp_path / "s", quality=10)
    ((told, frames),) = read_shards(tmp_path / "s")
    assert [frames.encoded(t) for t in range(3)] == [video.encoded(t) for t in range(3)]
    assert told.timeline.clip.duration == pytest.approx(3.0)
    write_shards([(told, frames)], tmp_path / "again", quality=10)
    ((_, copy),) = read_shards(tmp_path / "again")
    assert copy.encoded(1) == frames.encoded(1)


def test_a_lower_rate_takes_the_last_picture_of_each_part(tmp_path):
    write_shards([(labels(0), Drawn(4, rate=4, empty=2))], tmp_path)
    for rate, wanted in ((1, [[3], [7], [11], [15]]), (2, [[3], [5, 7], [9, 11], [13, 15]])):
        (sample,) = open_corpus(tmp_path, frames_per_second=rate)
        assert [[grey(i) for i in sample[1].frames(t)] for t in range(4)] == wanted
    (small,) = open_corpus(tmp_path, frames_per_second=2, size=8)
    assert small[1].frames(1)[0].size == (8, 6)
    with pytest.raises(CorpusError, match="divisor of 4"):
        open_corpus(tmp_path, frames_per_second=3)[0]


# What is rejected when a corpus is written.


def test_bad_records_are_counted_and_kept_and_the_rest_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "MAX_RECORD_BYTES", 20_000)
    monkeypatch.setattr(shard_file, "MAX_LABEL_BYTES", 20_000)
    given = [
        (labels(0), Drawn(4)),
        (labels(1), Drawn(4, bad=3)),
        (labels(2, None, at=7), Drawn(4)),
        (labels(3, 40), Drawn(40)),
        (labels(4, None), Drawn(4)),
        (StreamLabels(timeline(5, None), (Summary(0, 9, "a"),)), Drawn(4)),
        (replace(labels(6), history=({"detail": "x" * 30_000},)), Drawn(4)),
        replace(turn(7), answer="\ud800"),
        (replace(labels(8), licence={"not": "a text"}), Drawn(4)),
    ]
    index = write_shards(given, tmp_path)
    reasons = {"damaged": 1, "past the end": 2, "too large": 2, "not UTF-8": 1, "shape": 1}
    assert index["rejected"] == reasons
    assert index["consumed"] == index["records"] + 7
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(line["item"], line["reason"]) for line in lines] == [
        ("1", "damaged"),
        ("2", "past the end"),
        ("3", "too large"),
        ("5", "past the end"),
        ("6", "too large"),
        ("7", "not UTF-8"),
        ("8", "shape"),
    ]
    first, last = read_shards(tmp_path)
    assert first[0].timeline.meta["n"] == 0
    found = last[0].timeline.clip
    assert found == Clip("clip 4", 4.0), "the length is known from the pictures"
    assert [grey(i) for i in last[1].frames(3)] == [6, 7]


def test_a_turn_without_a_text_is_none():
    with pytest.raises(TimelineError, match="empty text"):
        TurnSample("t", "Which?", " ")


# Killed and started again.


def names(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3, 5, 6, 7])
def test_a_killed_writer_goes_on_and_ends_with_the_same_bytes(tmp_path, killed_at):
    def given():
        for n, record in enumerate(records(8)):
            yield (labels(n), Drawn(4, bad=1)) if n in (2, 6) else record

    write_shards(given(), tmp_path / "whole", per_shard=2)
    writer = ShardWriter(tmp_path / "killed", per_shard=2)
    for record in itertools.islice(given(), killed_at):
        writer.add(record)
    del writer  # nothing is closed or finished

    taken = []
    with ShardWriter(tmp_path / "killed", per_shard=2) as writer:
        for record in itertools.islice(given(), writer.consumed, None):
            taken.append(record)
            writer.add(record)
    assert len(taken) <= 8 - killed_at + 3
    assert names(tmp_path / "killed") == names(tmp_path / "whole")


KILLED = """
import sys, os
sys.path[:0] = sys.argv[2:4]
from test_shards import records
from joyvl_train.shards import ShardWriter
writer = ShardWriter(sys.argv[1], per_shard=2)
for n, record in enumerate(records(5)):
    writer.add(record)
    if n == 4:
        os.kill(os.getpid(), 9)
"""


def test_after_kill_9_the_same_call_ends_with_the_same_bytes(tmp_path):
    here = Path(__file__).parent
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(folder), str(here), str(here.parents[1])]
    assert subprocess.run(command, check=False).returncode == -9
    assert not (folder / "index.json").exists()
    with pytest.raises(CorpusError, match="unfinished"):
        open_corpus(folder)
    write_shards(records(5), folder, per_shard=2)
    write_shards(records(5), tmp_path / "whole", per_shard=2)
    assert names(folder) == names(tmp_path / "whole")


def test_a_finished_corpus_is_left_as_it_is(tmp_path):
    index = write_shards(records(3), tmp_path, signature="a")

    def never():
        raise AssertionError("nothing is taken")
        yield

    left = tmp_path / "shard-00000.json"
    left.write_text("{}")  # by a kill just after the index was written
    assert write_shards(never(), tmp_path, signature="a") == index
    assert not left.exists()
    with pytest.raises(CorpusError, match="another corpus"):
        write_shards(records(3), tmp_path, signature="b")


def test_a_folder_that_can_not_be_written_is_a_users_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="name another folder"):
        write_shards(records(1), tmp_path / "file")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CorpusError, match="No space left on device"):
        write_shards(records(1), tmp_path / "full")


# What is broken when a corpus is read.


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """Nine records, each a row group of its own."""
    monkeypatch.setattr(shard_file, "GROUP_LABEL_BYTES", 1)
    folder = tmp_path / "corpus"
    write_shards(records(9), folder, per_shard=3)
    return folder


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def places(path: Path) -> dict:
    """What a shard's footer says of where its parts lie."""
    return json.loads(pq.read_metadata(path).metadata[b"joyvl"])


def test_random_access_finds_every_record(corpus):
    opened = open_corpus(corpus)
    assert len(opened) == 9
    assert opened[4].id == "t4"
    assert opened[6][0].timeline.meta["n"] == 6 and opened[0][0].timeline.meta["n"] == 0
    copy = pickle.loads(pickle.dumps(opened))
    assert copy[6][0] == opened[6][0]
    for outside in (9, -1):
        with pytest.raises(IndexError):
            opened[outside]


def test_annotations_alone_need_pictures_from_somewhere(corpus):
    opened = open_corpus(corpus)
    with pytest.raises(RecordError, match="no source"):
        opened[2]
    assert opened.rejects.counts == {"no source": 1}


def test_a_corrupt_record_is_counted_and_training_goes_on(corpus, tmp_path):
    shard = corpus / "shard-00001.parquet"
    told = places(shard)
    flip(shard, told["pictures"][0][0][1] + 30)  # a picture of record 3
    flip(shard, told["groups"][1][1] + 5)  # the labels of record 4
    assert check_hashes(corpus) == ["shard-00001"]
    opened = open_corpus(corpus, rejects=Rejects(tmp_path / "rejects.jsonl"))
    for _ in range(2):  # two epochs
        good = list(opened)
        assert len(good) == 4  # of 9: two corrupt, three without pictures
    assert opened.rejects.counts == {"corrupt frame": 1, "corrupt record": 1, "no source": 3}
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 5
    with pytest.raises(RecordError, match="shard-00001 record 0"):
        opened[3]


def without(path: Path, key: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(key, key[::-1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-700]), "truncated shard"),
        (lambda shard: shard.write_bytes(shard.read_bytes() + b"x"), "truncated shard"),
        (lambda shard: shard.unlink(), "missing shard"),
        (lambda shard: shard.write_bytes(b""), "missing shard"),
        (lambda shard: without(shard, b"joyvl"), "corrupt shard"),
        (lambda shard: flip(shard, -8), "corrupt shard"),
    ],
)
def test_a_broken_shard_costs_its_own_records_only(corpus, damage, reason):
    damage(corpus / "shard-00002.parquet")
    opened = open_corpus(corpus)
    assert len(list(opened)) == 4
    assert opened.rejects.counts[reason] == 3
    assert [unread.reason for unread in opened.survey().unread] == [reason] * 3


def rewritten(corpus: Path, change) -> None:
    """The last shard's footer is another one, and the index knows it: another program wrote it."""
    path = corpus / "shard-00002.parquet"
    parquet = pq.ParquetFile(path)
    schema, told = parquet.schema_arrow, places(path)
    change(told)
    with pq.ParquetWriter(path.with_suffix(".new"), schema) as writer:
        writer.write_table(parquet.read())
        writer.add_key_value_metadata({"joyvl": json.dumps(told)})
    path.with_suffix(".new").replace(path)
    index, data = read_index(corpus), path.read_bytes()
    index["shards"][2].update(bytes=len(data), footer=[8, zlib.crc32(data[-8:])])
    (corpus / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda told: told.update(version=2), "other version"),
        (lambda told: told.pop("groups"), "corrupt shard"),
        (lambda told: told.update(groups=[[3, 0, 9, 1]]), "corrupt record"),
        (lambda told: told.update(groups=[[3, 4, 10**15, 1]]), "corrupt record"),
        (lambda told: told.update(groups=[[3, "4"]]), "corrupt record"),
    ],
)
def test_a_footer_of_another_kind_is_told(corpus, change, reason):
    rewritten(corpus, change)
    opened = open_corpus(corpus)
    assert len(list(opened)) == 4
    assert opened.rejects.counts[reason] == 3


def test_what_is_no_corpus_is_a_users_error(corpus, tmp_path):
    with pytest.raises(CorpusError, match="doesn't exist"):
        open_corpus(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no corpus"):
        open_corpus(tmp_path / "empty")
    with pytest.raises(CorpusError, match="folder of pictures"):
        open_corpus(corpus, tmp_path / "nowhere")
    index = corpus / "index.json"
    told = read_index(corpus)
    index.write_text(json.dumps({**told, "version": 99}))
    with pytest.raises(CorpusError, match="newer"):
        open_corpus(corpus)
    index.write_text("[]")
    with pytest.raises(CorpusError, match="write the corpus anew"):
        open_corpus(corpus)
    write_shards([], tmp_path / "none")
    with pytest.raises(CorpusError, match="no sample"):
        open_corpus(tmp_path / "none")


# Published JSON with pictures on disk.


@pytest.fixture
def published(tmp_path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.jpg").write_bytes(encode(Image.new("RGB", (16, 12), (k * 8,) * 3)))
    pictures = [[f"{k}.jpg"] for k in range(4)]
    good = to_chat(timeline(0), pictures)
    gone = {**good, "images": [*good["images"][:-1], "gone.jpg"]}
    out = {**good, "images": [*good["images"][:-1], "../x.jpg"]}
    late = {"video_name": "v", "question": [], "response": [{"content": "a", "time": "nan"}]}
    (folder / "data.json").write_text(json.dumps([late, good, gone, out, good], indent=1))
    return folder


def test_published_json_is_opened_as_a_corpus(published, tmp_path):
    rejects = Rejects(tmp_path / "r.jsonl")
    opened = open_corpus(published / "data.json", rejects=rejects)
    assert len(opened) == 3
    assert rejects.counts == {"time is no number": 1, "outside the folder": 1}
    told, frames = opened[2]
    assert actions(told.timeline)[2] == Response("Answer 0.")
    assert [grey(frames.frames(t)[0]) for t in range(4)] == [0, 1, 2, 3]
    assert len(list(opened)) == 2
    assert rejects.counts["missing file"] == 1
    items = [json.loads(line)["item"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert items == ["data.json item 0", "data.json item 3", "data.json item 2"]
    copy = pickle.loads(pickle.dumps(opened))
    assert copy[0][0] == opened[0][0]


def test_pictures_may_lie_in_another_folder(published, tmp_path):
    (tmp_path / "other").mkdir()
    data = (published / "data.json").rename(tmp_path / "other/data.json")
    with pytest.raises(RecordError, match="missing file"):
        open_corpus(data)[0]
    assert open_corpus(data, published)[0][1].seconds == 4


def test_json_lines_of_raw_records_with_videos(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(15):
            picture = np.zeros((32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    lines = [
        {"video_path": "v.mp4", "question": [], "response": [{"content": "a", "time": time}]}
        for time in ("2", "3", "1,2,3")
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    opened = open_corpus(path, cache_dir=tmp_path / "c", size=16)
    told, frames = opened[0]
    assert told.timeline.clip.duration == pytest.approx(3.0) and frames.frames(2)[0].size == (
        16,
        16,
    )
    for late in (1, 2):
        with pytest.raises(RecordError, match="past the end"):
            opened[late]


def test_settling_keeps_what_is_known(tmp_path):
    told = timeline(0, 3)
    assert settle(told, Drawn(9)) is told
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    pictures = ImageFrames(["a.png"] * 5, 2.0, 1, root=tmp_path)
    assert settle(timeline(0, None), pictures).clip.duration == 2.5
