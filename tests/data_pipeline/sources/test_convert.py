"""What is read is written or rejected, whatever the annotations hold."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused, candidate_from_json, candidate_to_json
from data_pipeline.sources import wordings, world
from data_pipeline.sources.convert import SOURCES, convert, write
from joyvl_train.config import UserError
from joyvl_train.timeline import from_json, to_json
from tests.data_pipeline.sources import shapes
from tests.data_pipeline.sources.shapes import RECORDS, as_lines, as_list, spoilt

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from("video question time events clip messages text start vid".split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def check(source: str, path: Path, items: int) -> dict[str, int]:
    """Convert, and hold the counts against the number of items and against the files."""
    out = path.parent / "out"
    counts = write(convert(source, path), out)
    assert counts["convert/read"] == items
    assert counts["convert/written"] + counts["convert/rejected"] == items
    kept = [from_json(json.loads(line)) for line in (out / "timelines.jsonl").open()]
    lost = [json.loads(line) for line in (out / "rejects.jsonl").open()]
    assert (len(kept), len(lost)) == (counts["convert/timelines"], counts["convert/rejected"])
    reasons = [name for name in counts if name.startswith("convert/rejected/")]
    assert sum(counts[name] for name in reasons) == len(lost)
    assert all(len(line["reason"]) < 40 and len(line["detail"]) <= 300 for line in lost)
    assert sorted(p.name for p in out.iterdir()) == ["rejects.jsonl", "timelines.jsonl"]
    return counts


@pytest.mark.parametrize("source", RECORDS)
def test_every_shape_is_converted(tmp_path, source):
    for path in (
        as_list(tmp_path / "x.json", RECORDS[source]),
        as_lines(tmp_path / "x.jsonl", RECORDS[source]),
    ):
        counts = check(source, path, len(RECORDS[source]))
        assert counts["convert/rejected"] == 0


def test_lines_and_pairs_are_items(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("\n".join([*shapes.CHARADES, "", "no line"]))
    assert check("charades_sta", path, 4)["convert/rejected/shape"] == 1
    path.write_text(json.dumps(shapes.ACTIVITYNET))
    assert check("activitynet", path, 3)["convert/written"] == 3


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("source", RECORDS)
@given(data=st.data())
def test_items_read_are_those_written_and_rejected(tmp_path_factory, source, data):
    record = st.sampled_from(RECORDS[source])
    mixed = st.one_of(
        json_values,
        record,
        st.tuples(record, st.integers(0, 10**6)).map(
            lambda pair: spoilt(random.Random(pair[1]), pair[0])
        ),
    )
    items = data.draw(st.lists(mixed, max_size=6))
    folder = tmp_path_factory.mktemp("x")
    check(source, as_list(folder / "x.json", items), len(items))


def pairs(data: dict[str, Any]) -> int:
    """How many (video, sentence) pairs there are; a video without is one item."""
    count = 0
    for told in data.values():
        lists = [told.get(k) for k in ("timestamps", "sentences")] if isinstance(told, dict) else []
        whole = len(lists) == 2 and all(isinstance(part, list) for part in lists)
        count += max(1, *map(len, lists)) if whole else 1
    return count


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 6))
def test_pairs_of_activitynet_are_written_or_rejected(tmp_path_factory, seed, videos):
    rng = random.Random(seed)
    data = {f"v{n}": spoilt(rng, shapes.ACTIVITYNET["v_one"]) for n in range(videos)}
    path = tmp_path_factory.mktemp("x") / "x.json"
    path.write_text(json.dumps(data))
    check("activitynet", path, pairs(data))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=30) | st.sampled_from(shapes.CHARADES), max_size=8))
def test_lines_of_charades_are_written_or_rejected(tmp_path_factory, lines):
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    path = tmp_path_factory.mktemp("x") / "x.txt"
    path.write_bytes(text)
    check("charades_sta", path, sum(bool(line.strip()) for line in text.split(b"\n")))


def fuzz(tmp_path: Path, source: str, count: int) -> None:
    rng = random.Random(f"fuzz {source}")
    path = tmp_path / "x.jsonl"
    with path.open("w") as file:
        for n in range(count):
            record = rng.choice(RECORDS[source])
            if source == "events":  # the same row again would be "said already"
                record = {**record, "video": f"{n}.mp4"}
            file.write(json.dumps(spoilt(rng, record)) + "\n")
    counts = check(source, path, count)
    assert counts["convert/written"] > count / 20, "the fuzz leaves nothing sound"
    for n, one in enumerate(convert(source, path)):
        if isinstance(one, Candidate) and n % 7 == 0:
            assert candidate_from_json(json.loads(json.dumps(candidate_to_json(one)))) == one


@pytest.mark.parametrize("source", RECORDS)
def test_spoilt_records_are_refused_and_counted(tmp_path, source):
    fuzz(tmp_path, source, 300)


@pytest.mark.slow
@pytest.mark.parametrize("source", RECORDS)
def test_a_hundred_thousand_spoilt_records(tmp_path, source):
    fuzz(tmp_path, source, 100_000 // len(RECORDS) + 1)


FILES = {
    "charades_sta": ("x.txt", "\n".join(shapes.CHARADES)),
    "activitynet": ("x.json", json.dumps(shapes.ACTIVITYNET)),
    "qvhighlights": ("x.jsonl", "\n".join(map(json.dumps, shapes.QVHIGHLIGHTS))),
    "joyai": ("x.json", json.dumps(shapes.PUBLISHED)),
    "events": ("x.csv", 'video,start,end,text\na.mp4,1,2,"x, y"\nb.mp4,0:03,,z\n'),
    "subtitles": ("x.srt", "1\n00:00:01,000 --> 00:00:02,500\nHello <b>you</b>\n\nstray\n"),
}
PIECES = [b'"', b"{", b"}", b"[", b"]", b"\0", b"\xff", b"\n", b"\r", b",", b"##", b"-->", b"\\"]
PIECES += [b"\xed\xa0\x80", b"\xef\xbb\xbf", b":", b"9" * 500, b"NaN", b"1e999", b"\xe2\x80\xa8"]


@pytest.mark.parametrize("source", FILES)
def test_files_with_bytes_out_of_place_are_read_or_told_of_in_a_line(tmp_path, source):
    name, text = FILES[source]
    rng = random.Random(source)
    told = 0
    for _ in range(80):
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(data) + 1)
            if rng.random() < 0.6:
                data[at:at] = rng.choice(PIECES)
            else:
                del data[at : at + rng.choice([1, 2, 40])]
        (tmp_path / name).write_bytes(data)
        try:
            counts = write(convert(source, tmp_path / name), tmp_path / "out")
        except UserError as error:
            assert "\n" not in str(error)
            told += 1
        else:
            assert counts["convert/read"] > 0 or not data.strip()
    assert told < 70


def test_an_unknown_source_is_told_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match="charades_sta.*streamo"):
        convert("charades", tmp_path / "x")
    assert set(SOURCES) == {*RECORDS, *FILES}


def test_a_broken_off_conversion_leaves_nothing_half_written(tmp_path):
    def results():
        yield Refused("a", "shape")
        raise KeyboardInterrupt

    path = as_list(tmp_path / "x.json", shapes.QVHIGHLIGHTS)
    before = check("qvhighlights", path, 2)
    kept = (tmp_path / "out/timelines.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(results(), tmp_path / "out")
    assert (tmp_path / "out/timelines.jsonl").read_bytes() == kept
    assert (tmp_path / "out/rejects.jsonl").read_bytes() == b""
    assert check("qvhighlights", path, 2) == before


def test_a_long_list_is_streamed(tmp_path):
    path = tmp_path / "x.json"
    big = json.dumps({**shapes.STREAMO_RAW, "note": "x" * 10_000})
    with path.open("w") as file:
        file.write("[" + ",".join([big] * 2000) + "]")
    tracemalloc.start()
    counts = write(convert("streamo", path), tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts["convert/written"] == 2000 and path.stat().st_size > 20_000_000
    assert peak < 4_000_000


def test_the_world_is_a_source(tmp_path):
    made = list(world.read(9, seed=5, seconds=10, mix=["alerting", "counting"]))
    assert [one.timeline.family for one in made] == (["alerting", "counting"] * 5)[:9]
    assert made[:4] == list(world.read(4, seed=5, seconds=10, mix=["alerting", "counting"]))
    assert len({one.id for one in made}) == 9
    assert {(one.use, one.licence) for one in made} == {("train", "Apache-2.0")}
    (held,) = world.read(1, seed=5, split="test")
    assert held.use == held.timeline.meta["use"] == "evaluation"
    for one in made:
        assert candidate_from_json(json.loads(json.dumps(candidate_to_json(one)))) == one
    counts = write(iter(made), tmp_path / "out")
    assert counts["convert/written"] == 9
    lines = [json.loads(line) for line in (tmp_path / "out/timelines.jsonl").open()]
    assert lines == [json.loads(json.dumps(to_json(one.timeline))) for one in made]


def test_words():
    assert wordings.sentence("is it red?") == "Is it red?"
    assert wordings.sentence('he says "stop."') == 'He says "stop."'
    assert wordings.words_of("PutOnHairExtensions") == "put on hair extensions"
    assert wordings.words_of("InstallSSD") == "install SSD"
    assert wordings.bare("wait...") == "wait..." and wordings.bare("open it.") == "open it"
    assert [wordings.letter(n) for n in (0, 25, 26)] == ["A", "Z", "27"]
    for first in (0.0, 0.9, 1.0, 1.9, 2.0, 50.0):
        asked = {wordings.asked_at(f"{n:032x}"[::-1], first) for n in range(64)}
        assert min(asked) == 0 and max(asked) <= max(0, int(first) - 1)
