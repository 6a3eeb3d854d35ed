"""recipe=corpus command=export: a corpus out in the published form, through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.sources import published
from joyvl_train.cli import main
from joyvl_train.corpus import open_corpus
from joyvl_train.frames import ImageFrames, open_video
from joyvl_train.memory import Summary
from joyvl_train.published import read_published, write_published
from joyvl_train.records import Rejects, StreamLabels, TurnSample
from joyvl_train.shards import read_shards, write_shards
from joyvl_train.timeline import Clip, Event, Rule, Timeline, actions, to_json
from tests.joyvl_train.videos import make_video

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def export(folder: Path, *overrides: str, dir: str = "out") -> int:
    return main(
        [
            "recipe=corpus",
            "command=export",
            f"run.root={folder / 'outputs'}",
            f"run.dir={folder / dir}",
            f"data.cache_dir={folder / 'cache'}",
            *overrides,
        ],
        ROOT,
    )


def figures(folder: Path, dir: str = "out") -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / dir / "metrics.json").read_text())
    return {name: count for name, count in found.items() if name.startswith("export/")}


def timelines() -> list[Timeline]:
    late = (
        Event("q0", 1.0, "user", "Tell me when it burns."),
        Event("r0", 4.3, "assistant", "It burns.", until=6.75, answers="q0", rule=Rule("exact")),
    )
    handed = (
        Event("q0", 0.5, "user", "How much is that?"),
        Event("r0", 2.0, "assistant", "Let me see.", question="What is 7 x 8?", answers="q0"),
        Event("b0", 5.0, "background", "56", answers="r0"),
        Event("r1", 6.0, "assistant", "It is 56.", answers="b0", late=3),
    )
    return [
        Timeline(Clip("a", 9.0, video="long.mp4", offset=50), "alerting", "made", late),
        Timeline(Clip("b", 8.5, video="long.mp4"), "delegation", "made", handed, meta={"n": 1}),
    ]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two clips of one video, and a question about a picture."""
    video = make_video(tmp_path / "long.mp4", [k / 2 for k in range(2 * 60)], g="20")
    records: list[Any] = []
    for told in timelines():
        cut = {"start": told.clip.offset, "duration": told.clip.duration}
        frames = open_video(video, 1, cache_dir=tmp_path / "cache", **cut)  # type: ignore[arg-type]
        memory = (Summary(0, 4, "It was lit."),) if told.clip.id == "a" else ()
        records.append((StreamLabels(told, memory, language="de", licence="CC0"), frames))
    records.append(TurnSample("t", "What is it?", "A dot.", (Image.new("RGB", (8, 8)),)))
    write_shards(records, tmp_path / "corpus")
    return tmp_path / "corpus"


def test_raw_records_come_back_equal(corpus: Path, tmp_path: Path) -> None:
    assert export(tmp_path, f"data.path={corpus}") == 0
    assert figures(tmp_path) == {
        "export/read": 3,
        "export/written": 2,
        "export/rejected": 1,
        "export/rejected/no_stream": 1,
    }
    out = tmp_path / "out" / "data.json"
    back: list[Any] = list(published.read(out, licence="other"))
    assert [one.timeline for one in back] == timelines()
    assert {(one.language, one.licence) for one in back} == {("de", "CC0")}
    # Its memory text comes along, to be vouched for like any.
    assert [one.summaries for one in back] == [(), ()]
    own = [one.work.get(published.TOLD_SUMMARIES) for one in back]
    assert own == [[[0, 4, "It was lit."]], None]
    first = json.loads(out.read_text())[0]
    assert first["response"][0]["time"] == "54.3" and first["clip_offset"] == 50
    # It is a source of recipe=corpus, and what sft reads.
    again = open_corpus(out, tmp_path, cache_dir=tmp_path / "cache")
    pictures = [frames for _, frames in again]  # type: ignore[misc]
    for (_, stored), read in zip(read_shards(corpus), pictures, strict=False):  # type: ignore[misc]
        seconds = range(stored.seconds)
        shown = [np.asarray(read.frames(t)[0]) for t in seconds]
        assert all((np.asarray(stored.frames(t)[0]) == shown[t]).all() for t in seconds)


def test_converted_chats_come_with_their_pictures(corpus: Path, tmp_path: Path) -> None:
    assert export(tmp_path, f"data.path={corpus}", "corpus.form=converted") == 0
    assert figures(tmp_path)["export/written"] == 2
    rejects = Rejects()
    out = tmp_path / "out"
    back = list(read_published(out / "data.json", rejects, out))
    assert not rejects.total
    assert [actions(one) for one in back] == [actions(one) for one in timelines()]
    assert [one.clip.offset for one in back] == [50, 0]
    assert len(list((out / "images").rglob("*.jpg"))) == 9 + 9
    record = json.loads((out / "data.json").read_text())[0]
    assert "<50.0 seconds>" in record["messages"][0]["content"]
    # Into the same folder again, with less: no picture stays that no record names.
    one = list(read_shards(corpus))[:1]
    one = [(replace(labels.timeline, events=()), shown) for labels, shown in one]
    assert write_published(one, out, rejects) == 1
    assert len(list((out / "images").rglob("*.jpg"))) == 9
    for name in ("00009.0.jpg", "00000.1.jpg"):
        (out / "images" / "000000" / name).write_bytes(b"of a longer record, or a higher rate")
    # Those that are read from there while they are written are there until they are.
    again = [(told, shown_from(out, told)) for told in read_published(out / "data.json", rejects)]
    assert write_published(again, out, rejects) == 1
    assert len(list((out / "images").rglob("*.jpg"))) == 9 and not rejects.total


def shown_from(folder: Path, told: Timeline) -> ImageFrames:
    return ImageFrames(told.clip.images, 1.0, root=folder)


def test_a_benchmarks_record_never_comes_back_for_training(corpus: Path, tmp_path: Path) -> None:
    tested = tmp_path / "tested"
    records: list[Any] = list(read_shards(corpus))[:2]
    write_shards([(replace(labels, use="evaluation"), shown) for labels, shown in records], tested)
    assert export(tmp_path, f"data.path={tested}") == 0
    out = tmp_path / "out" / "data.json"
    back = list(published.read(out))
    assert [one.use for one in back] == ["evaluation"] * 2  # type: ignore[union-attr]
    rejects = Rejects()
    assert not list(read_published(out, rejects)) and rejects.counts == {"evaluation only": 2}
    # Chats have no place to say so.
    assert export(tmp_path, f"data.path={tested}", "corpus.form=converted", dir="chats") == 0
    assert figures(tmp_path, "chats") == {
        "export/read": 2,
        "export/written": 0,
        "export/rejected": 2,
        "export/rejected/evaluation_only": 2,
    }


def test_a_scene_that_is_none_takes_no_other_record_with_it(tmp_path: Path) -> None:
    scene = Timeline(Clip("s", 4.0, scene={"seed": "none"}), "qa", "world")
    shown = Timeline(Clip("p", 2.0, images=("a.jpg", "a.jpg")), "qa", "made")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    path = tmp_path / "timelines.jsonl"
    path.write_text("".join(json.dumps(to_json(one)) + "\n" for one in (scene, shown)))
    assert export(tmp_path, f"data.path={path}", "corpus.form=converted") == 0
    assert figures(tmp_path) == {
        "export/read": 2,
        "export/written": 1,
        "export/rejected": 1,
        "export/rejected/no_source": 1,
    }


def test_timelines_of_annotations_alone_and_what_can_not_be_held(tmp_path: Path) -> None:
    query = Event("q", 0, "user", "Two\nlines")
    odd = Timeline(Clip("c", 5.0), "qa", "made", (query,))
    lines = [json.dumps(to_json(one)) for one in (*timelines(), odd)]
    path = tmp_path / "timelines.jsonl"
    path.write_text("\n".join([*lines, '{"clip": 1}']) + "\n")
    assert export(tmp_path, f"data.path={path}") == 0
    found = figures(tmp_path)
    assert found["export/read"] == 4 == found["export/written"] + found["export/rejected"]
    assert found["export/written"] == 2
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == 2


def test_a_broken_shard_is_counted_record_by_record(corpus: Path, tmp_path: Path) -> None:
    (shard,) = corpus.glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-10])
    assert export(tmp_path, f"data.path={corpus}") == 0
    assert figures(tmp_path) == {
        "export/read": 3,
        "export/written": 0,
        "export/rejected": 3,
        "export/rejected/truncated_shard": 3,
    }


def test_a_corpus_that_is_not_there_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path) == 2
    assert "data.path is empty" in capsys.readouterr().err
    assert export(tmp_path, f"data.path={tmp_path / 'nothing'}", dir="other") == 2
    assert "mend the path" in capsys.readouterr().err


def test_the_latest_corpus_goes_out_where_none_is_named(corpus: Path, tmp_path: Path) -> None:
    latest = tmp_path / "outputs" / "latest" / "corpus"
    latest.mkdir(parents=True)
    corpus.rename(latest / "corpus")
    assert export(tmp_path) == 0
    assert figures(tmp_path)["export/written"] == 2
