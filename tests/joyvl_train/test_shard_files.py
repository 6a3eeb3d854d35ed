"""The files of a corpus: what other tools see of them, who may write them, and what breaks them."""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from joyvl_train import shard_file
from joyvl_train.corpus import open_corpus
from joyvl_train.frames import decode, encode
from joyvl_train.memory import Summary
from joyvl_train.records import Record, StreamLabels, TurnSample
from joyvl_train.shard_file import _Pictures
from joyvl_train.shard_reader import Blobs
from joyvl_train.shard_rows import LABELS, SCHEMA, labels_of, stream_row, turn_row
from joyvl_train.shards import (
    CorpusError,
    ShardFrames,
    check_hashes,
    read_entries,
    read_index,
    read_shards,
    write_index,
    write_shard,
    write_shards,
)
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError
from joyvl_train.video import FrameError


class Noise:
    """Frames that don't compress; `bad` is a second that can't be had."""

    def __init__(self, seconds: int, seed: int = 0, side: int = 16, bad: int = -1) -> None:
        self.seconds, self.seed, self.side, self.bad = seconds, seed, side, bad

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        if second == self.bad:
            raise FrameError("damaged", f"second {second}")
        rng = np.random.default_rng((self.seed, second))
        pixels = rng.integers(0, 256, (self.side, self.side, 3), np.uint8)
        return (Image.fromarray(pixels),)


def labels(number: int, seconds: int = 3) -> StreamLabels:
    asked = Event("q", 0, "user", "What burns?")
    rule = Rule("key_facts", ("car|automobile", "red"))
    said = Event("a", 1.5, "assistant", "A car.", None, 2.5, True, "q", rule, 0, 2)
    clip = Clip(f"clip {number}", float(seconds), video=f"v{number}.mp4")
    timeline = Timeline(clip, "alerting", "made", (asked, said), 1.0, "Before.", {"b": 1, "a": [2]})
    return StreamLabels(
        timeline,
        (Summary(0, 2, "A car comes."),),
        f"id{number}",
        f"footage {number}",
        "en",
        "CC-BY-4.0",
        "evaluation",
        ({"stage": "filter", "verdict": "kept"},),
    )


def turn(number: int) -> TurnSample:
    images = (Image.new("RGB", (20, 10), (200, 0, 0)),)
    return TurnSample(f"t{number}", "Which?", "Red.", images, "Earlier.", "made", {"n": number})


def record(number: int) -> Record:
    """A stream, a turn-based sample, labels alone; every fifth stream can't be used."""
    if number % 3 == 1:
        return turn(number)
    if number % 3 == 2:
        return labels(number), None
    return labels(number), Noise(3, number, bad=1 if number % 15 == 6 else -1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- rows

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = texts.filter(str.strip)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
metas = st.dictionaries(texts, plain, max_size=3)
common = {
    "id": words,
    "footage": words,
    "language": texts,
    "licence": texts,
    "use": st.sampled_from(["train", "evaluation"]),
    "history": st.lists(metas, max_size=2).map(tuple),
}
events = st.builds(
    Event,
    words,
    st.floats(0, 9),
    st.just("user"),
    words,
    until=st.none() | st.floats(9, 12),
    rule=st.none() | st.builds(Rule, st.just("number"), st.lists(texts, max_size=2).map(tuple)),
    early=st.none() | st.integers(0, 3600),
)
clips = st.builds(
    Clip, texts, st.none() | st.floats(10, 20), st.none(), st.just(()), st.none() | metas
)
streams = st.builds(
    StreamLabels,
    st.builds(
        Timeline,
        clips,
        texts,
        texts,
        st.lists(events, max_size=3, unique_by=lambda event: event.id).map(tuple),
        st.floats(0.5, 60),
        texts,
        metas,
    ),
    st.lists(st.builds(Summary, st.integers(0, 4), st.integers(5, 10), words), max_size=2).map(
        tuple
    ),
    **common,
)
turns = st.builds(
    TurnSample, question=words, answer=words, context=texts, source=texts, meta=metas, **common
)


@given(streams | turns)
def test_labels_come_back_from_their_row(told: StreamLabels | TurnSample) -> None:
    row = turn_row(told) if isinstance(told, TurnSample) else stream_row(told)
    (back,) = pa.Table.from_pylist([row], LABELS).to_pylist()
    assert labels_of(back) == told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "video"}, "shape"),
        ({"kind": None}, "shape"),
        ({"use": "fun"}, "shape"),
        ({"events": None}, "shape"),
        ({"frames_per_second": 0.0}, "bad frame rate"),
        ({"meta": "{"}, "corrupt record"),
        ({"history": None}, "corrupt record"),
        ({"history": "[" * 10**5}, "corrupt record"),
        ({"summaries": [{"start": 2, "stop": 1, "text": "x"}]}, "corrupt record"),
        ({"summaries": [{"start": 2, "stop": 9, "text": "x"}]}, "past the end"),
    ],
)
def test_a_row_of_another_program_is_rejected(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(TimelineError) as error:
        labels_of({**stream_row(labels(0)), **change})
    assert error.value.reason == reason
    with pytest.raises(TimelineError):
        labels_of({"kind": "stream"})


# -- other tools


def test_datasets_loads_the_shards_with_their_pictures(tmp_path: Path) -> None:
    write_shards([(labels(0), Noise(3)), turn(1), (labels(2), None)], tmp_path / "corpus")
    files = str(tmp_path / "corpus" / "*.parquet")
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert found.features["images"] == datasets.List(datasets.Image())
    assert found["kind"] == ["stream", "turn", "stream"]
    row = found[0]
    assert row["events"][1]["text"] == "A car." and row["events"][1]["rule"]["facts"][1] == "red"
    assert row["summaries"] == [{"start": 0, "stop": 2, "text": "A car comes."}]
    assert (row["licence"], row["use"], row["seconds"]) == ("CC-BY-4.0", "evaluation", 3.0)
    ((_, frames), sample, _) = read_shards(tmp_path / "corpus")
    for second in range(3):
        (number,) = row["image_index"][second]
        assert row["images"][number].tobytes() == frames.frames(second)[0].tobytes()
    assert found[1]["question"] == "Which?" and found[1]["images"][0].size == (20, 10)
    assert sample.images[0].tobytes() == found[1]["images"][0].tobytes()
    assert found[2]["images"] == [] and found[2]["image_index"] is None
    # The folder itself can be named, too.
    whole = datasets.load_dataset(str(tmp_path / "corpus"), split="train", cache_dir=cache)
    assert whole["id"] == ["id0", "t1", "id2"]


def test_the_features_in_the_schema_are_those_of_the_columns() -> None:
    features = datasets.Features.from_arrow_schema(SCHEMA)
    assert features.arrow_schema.remove_metadata() == SCHEMA.remove_metadata()
    assert json.loads(SCHEMA.metadata[b"huggingface"])["info"]["features"] == features.to_dict()


# -- a shard at a time


def test_shards_written_apart_are_one_corpus(tmp_path: Path) -> None:
    whole = write_shards(map(record, range(30)), tmp_path / "whole", per_shard=7)
    assert whole["rejected"] == {"damaged": 2}
    # As many records a shard as the whole has.
    ends = [0]
    for entry in whole["shards"]:
        stop = ends[-1] + entry["records"]
        while sum(n % 15 != 6 for n in range(ends[-1], stop)) < entry["records"]:
            stop += 1
        ends.append(stop)
    parts = list(enumerate(zip(ends, [*ends[1:-1], 30], strict=False)))
    for order in (parts, parts[::-1]):
        folder = tmp_path / f"apart{order[0][0]}"
        for number, (start, stop) in order:
            path = folder / f"shard-{number:05d}.parquet"
            write_shard(path, map(record, range(start, stop)), first=start)
        entries = read_entries(folder)
        assert write_index(folder, entries) == whole == write_index(folder, [])
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_shard_is_written_once(tmp_path: Path) -> None:
    def never() -> Iterator[Record]:
        raise AssertionError("nothing is taken")
        yield turn(0)

    path = tmp_path / "shard-a.parquet"
    entry = write_shard(path, map(record, range(3)), signature="s")
    assert write_shard(path, never(), signature="s") == entry
    with pytest.raises(CorpusError, match="another corpus"):
        write_shard(path, never(), signature="other")
    with pytest.raises(CorpusError, match="another corpus"):
        write_index(tmp_path, [entry], signature="other")
    with pytest.raises(ValueError, match=r"shard-NAME.parquet"):
        write_shard(tmp_path / "a.parquet", [])
    with pytest.raises(CorpusError, match="unfinished"):
        open_corpus(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match="isn't the shard that was written"):
        write_index(tmp_path, [entry], signature="s")


def test_a_shard_without_a_record_is_counted_all_the_same(tmp_path: Path) -> None:
    bad = [(labels(0), Noise(3, bad=0)), (labels(1), Noise(3, bad=2))]
    entry = write_shard(tmp_path / "shard-0.parquet", bad, first=5)
    assert not (tmp_path / "shard-0.parquet").exists()
    good = write_shard(tmp_path / "shard-1.parquet", [turn(0)])
    index = write_index(tmp_path, [entry, good])
    assert (index["consumed"], index["records"], len(index["shards"])) == (3, 1, 1)
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["5", "6"]


def test_an_error_in_place_of_a_record_is_a_reject(tmp_path: Path) -> None:
    found = [turn(0), TimelineError("unreadable file", "a.mp4"), turn(1)]
    entry = write_shard(tmp_path / "shard-0.parquet", found)
    assert (entry["consumed"], entry["records"]) == (3, 2)
    assert entry["rejected"] == [{"item": "1", "reason": "unreadable file", "detail": "a.mp4"}]


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield turn(0)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        write_shard(tmp_path / "shard-0.parquet", broken())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError):
        write_shards(broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [0, 3, 1000, 60_000])
def test_a_full_disk_is_a_users_error(tmp_path: Path, room: int) -> None:
    """Files may not grow past `room`; the limit of the process stands for the disk."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    long = [(labels(0, 100), Noise(100, side=32))]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, kept[1]))
    try:
        with pytest.raises(CorpusError, match="free some space"):
            write_shard(tmp_path / "shard-0.parquet", long)
        with pytest.raises(CorpusError, match="free some space"):
            write_shards(long, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert list(tmp_path.iterdir()) == []
    assert write_shards(long, tmp_path)["records"] == 1


AGAIN = """
import sys
sys.path[:0] = sys.argv[2:4]
from test_shard_files import record
from joyvl_train.shards import write_shards
write_shards(map(record, range(12)), sys.argv[1], per_shard=5)
"""


def test_equal_records_give_equal_bytes_in_another_process(tmp_path: Path) -> None:
    here = Path(__file__).parent
    write_shards(map(record, range(12)), tmp_path / "here", per_shard=5)
    command = [
        sys.executable,
        "-c",
        AGAIN,
        str(tmp_path / "there"),
        str(here),
        str(here.parents[1]),
    ]
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run(command, check=True, env=env)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


# -- long records


def test_a_second_of_a_long_record_is_read_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shard_file, "GROUP_BYTES", 1 << 20)
    many = [
        (labels(n, s), Noise(s, n, side)) for n, s, side in ((0, 9, 8), (1, 200, 128), (2, 9, 8))
    ]
    write_shards(many, tmp_path)
    parquet = pq.ParquetFile(tmp_path / "shard-00000.parquet")
    assert [parquet.metadata.row_group(n).num_rows for n in range(2)] == [2, 1]
    read: list[int] = []
    real = Blobs.__getitem__

    def counted(self: Blobs, number: int) -> bytes:
        read.append(number)
        return real(self, number)

    monkeypatch.setattr(Blobs, "__getitem__", counted)
    corpus = open_corpus(tmp_path)
    assert [*corpus.survey().footage] and read == []
    for number, (_, frames) in enumerate(corpus):
        expected = many[number][1]
        read.clear()
        assert isinstance(frames, ShardFrames)
        for second in random.Random(number).sample(range(frames.seconds), 9):
            read.clear()
            (shown,) = frames.frames(second)
            assert read == [second]
            stored = decode(encode(expected.frames(second)[0], 90))
            assert shown.tobytes() == stored.tobytes()


def test_pictures_are_found_on_several_pages(tmp_path: Path) -> None:
    rows = [[b"a" * 5, b"b", b"c" * 300], [], [b"a" * 5, b"d"]]
    pictures = _Pictures()
    for row in rows:
        pictures.take(iter(row))
        pictures.of_row.append(len(row))
    stored = [len(data).to_bytes(4, "little") + data for row in rows for data in row]
    heads = {0: b"head", 2: b"another head", 3: b"", 4: b"\x05\0\0\0aaaa"}
    (tmp_path / "file").write_bytes(
        b"labels" + b"".join(heads.get(n, b"") + data for n, data in enumerate(stored)) + b"end"
    )
    with (tmp_path / "file").open("rb") as file:
        written = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = pictures.places(written, 0)
    assert [[number for number, _ in runs] for runs in found] == [[0, 2], [], [0, 1]]
    sizes, crcs = iter(pictures.sizes), iter(pictures.crcs)
    for row, runs in zip(rows, found, strict=True):
        take = [len(row)]
        blobs = Blobs(written, runs, [*islice(sizes, *take)], [*islice(crcs, *take)])
        assert [blobs[n] for n in range(len(blobs))] == row


# -- broken files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Path:
    """Ten streams in two shards, the first of two row groups."""
    folder: Path = tmp_path_factory.mktemp("whole") / "corpus"
    kept, shard_file.GROUP_BYTES = shard_file.GROUP_BYTES, 12_000
    write_shards([(labels(n), Noise(3, n)) for n in range(10)], folder, per_shard=6)
    shard_file.GROUP_BYTES = kept
    return folder


def shown(sample: Any) -> list[bytes]:
    return [frame.tobytes() for t in range(3) for frame in sample[1].frames(t)]


damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "move"]), st.floats(0, 1), st.integers(1, 255)
    ),
    min_size=1,
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(damages)
def test_what_a_broken_shard_still_gives_is_what_was_written(
    whole: Path, tmp_path_factory: Any, damages: list[tuple[str, float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    for name, data in contents(whole).items():
        broken = bytearray(data)
        for kind, share, value in damages if name == "shard-00000.parquet" else ():
            place = int(share * (len(broken) - 1))
            if kind == "flip":
                broken[place : place + 1] = bytes([(broken[place] if broken else 0) ^ value])
            elif kind == "cut":
                del broken[place:]
            elif kind == "zero":
                broken[place : place + 16 * value] = bytes(len(broken[place : place + 16 * value]))
            else:
                broken = broken[value:] + broken[:value]
        (folder / name).write_bytes(bytes(broken))
    before = [(sample[0], shown(sample)) for sample in open_corpus(whole)]
    corpus = open_corpus(folder)
    survey = corpus.survey()
    good = list(corpus)
    assert len(good) + corpus.rejects.total == 10 == len(survey.footage)
    assert len(good) >= 4, "the other shard is whole"
    assert all((sample[0], shown(sample)) in before for sample in good)
    allowed = {"missing shard", "truncated shard", "corrupt shard", "corrupt record"}
    assert set(corpus.rejects.counts) <= {*allowed, "corrupt frame"}
    assert check_hashes(folder) in ([], ["shard-00000"])
    assert read_index(folder)["records"] == 10


def test_the_fuzzed_corpus_has_several_row_groups(whole: Path) -> None:
    parquet = pq.ParquetFile(whole / "shard-00000.parquet")
    assert parquet.num_row_groups == 2 and parquet.metadata.num_rows == 6
