"""Sources of samples: lengths are exact, chunks are a live stream's, corpora of any shape serve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.world import stills
from data_pipeline.world.corpus import WorldStreams
from data_pipeline.world.streams import FAMILIES
from joyvl_train.actions import Response
from joyvl_train.collate import PackedRows, RowCollator
from joyvl_train.config import UserError
from joyvl_train.corpus import Corpus, open_corpus
from joyvl_train.frames import open_video
from joyvl_train.marks import UNKNOWN
from joyvl_train.memory import Summary
from joyvl_train.records import Rejects, StreamLabels, TurnSample
from joyvl_train.rendering import Renderer
from joyvl_train.samples import (
    CorpusStreams,
    QuestionSamples,
    StreamSamples,
    chunk_counts,
    chunks_of,
    corpus_parts,
    frame_sizes,
)
from joyvl_train.shards import ShardFrames, write_shards
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Event, Timeline
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights

from .conftest import picture

SHORT = StreamSettings(chunk_seconds=12, lead=3)


class Pictures:
    """Frames of noise; `missing` seconds have none, `size` may differ from second to second."""

    def __init__(
        self, seconds: int, missing: tuple[int, ...] = (), sizes: Any = ((64, 32),), rate: int = 1
    ) -> None:
        self.seconds = seconds
        self.decoded: list[int] = []
        self._missing, self._sizes, self._rate = missing, sizes, rate

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        self.decoded.append(second)
        if second in self._missing:
            return ()
        size = self._sizes[second % len(self._sizes)]
        return tuple(picture(10 * second + i, size) for i in range(self._rate))


class Telling(Pictures):
    """Frames that tell their sizes without decoding."""

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        if second in self._missing:
            return ()
        return (self._sizes[second % len(self._sizes)],) * self._rate


def timeline(name: str, seconds: int, events: tuple[Event, ...] = (), rate: float = 1) -> Timeline:
    asked = Event("q", 0.5, "user", "say fire when you see it")
    return Timeline(Clip(name, float(seconds)), "alerting", "test", (asked, *events), rate)


def said(name: str, time: float, text: str = "fire") -> Event:
    return Event(name, time, "assistant", text, answers="q")


@pytest.fixture(scope="module")
def renderer(speakers: Any) -> Renderer:
    found: Renderer = speakers["qwen3_vl"].renderer
    return found


def samples_of(streams: Any, renderer: Renderer, settings: Any = SHORT, **more: Any) -> Any:
    return StreamSamples(streams, renderer, LossWeights(), settings, **more)


# -- lengths


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    chunk=st.sampled_from([12, 100]),
    rate=st.sampled_from([1.0, 2.0]),
    system=st.sampled_from(["", "Watch."]),
)
def test_the_length_of_a_world_stream_is_that_of_its_rendering(
    renderer: Renderer, family: str, seed: int, chunk: int, rate: float, system: str
) -> None:
    streams = WorldStreams("train", seed, 1, {family: 1.0}, "drawn", 32, rate)
    cut = StreamSettings(chunk_seconds=chunk, lead=3)
    chunks = chunk_counts(streams, cut, (32, 32))
    told = samples_of(streams, renderer, cut, frame_size=(32, 32), system=system, chunks=chunks)
    assert len(told) == chunks[0]
    gold, frames = streams[0]
    scored = 0
    for index in range(len(told)):
        rendered, targets = told.render(index)
        assert told.length(index) == len(rendered)
        scored += len({s.second for s in rendered.spans if s.start in set(targets.positions)})
    # Every second of the clip is scored in exactly one chunk.
    assert scored == frames.seconds == gold.clip.seconds
    asked = samples_of(streams, renderer, cut, system=system, chunks=chunks)
    assert asked.length(0) == told.length(0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(stills.MIX)))
def test_the_length_of_a_still_is_that_of_its_rendering(
    renderer: Renderer, seed: int, kind: str
) -> None:
    item = stills.still(seed, "train", kind=kind, backgrounds=("plain",))
    source = QuestionSamples(lambda _: item, 1, renderer, side=32, system="Watch.")
    rendered, targets = source.render(0)
    assert source.length(0) == len(rendered) and rendered.turn_based
    assert set(targets.weights.tolist()) == {1.0}


def test_marks_stand_at_the_image_tokens(renderer: Renderer) -> None:
    item = stills.still(3, "train", kind="each", backgrounds=("plain",))
    count = len(item.times)
    source = QuestionSamples(
        lambda _: item, 1, renderer, side=64, marks=lambda still: np.arange(4 * count) % 2
    )
    rendered, targets = source.render(0)
    image = np.asarray(rendered.ids) == renderer.processor.image_id
    assert image.sum() == 4 * count
    assert targets.marks is not None
    assert targets.marks[image].tolist() == [0, 1] * (2 * count)
    assert (targets.marks[~image] == UNKNOWN).all()
    bare = QuestionSamples(lambda _: item, 1, renderer, side=64, marks=lambda still: None)
    assert bare.render(0)[1].marks is None


# -- chunks


def test_a_long_clip_gives_its_chunks(renderer: Renderer) -> None:
    long = timeline("long", 40, (said("a", 5.5), said("b", 13.2), said("c", 30.9)))
    streams = [(long, Telling(40)), (timeline("short", 4), Telling(4))]
    chunks = chunk_counts(streams, SHORT)
    assert chunks == [4, 1]
    source = samples_of(streams, renderer, chunks=chunks)
    assert len(source) == 5
    found = []
    for index in range(5):
        rendered, targets = source.render(index)
        assert source.length(index) == len(rendered)
        seconds = [s.second for s in rendered.spans if s.kind == "end"]
        scored = [
            s.second for s in rendered.spans if s.kind == "end" and s.stop - 1 in targets.positions
        ]
        found.append((seconds[0], scored[0], scored[-1]))
    # (first turn, carried for context; first and last that are scored)
    assert found == [(0, 0, 11), (9, 12, 23), (21, 24, 35), (33, 36, 39), (0, 0, 3)]
    text = renderer.tokenizer.decode(source.render(1)[0].ids)
    assert "say fire when you see it" in text and "fire" in text
    for index in (-1, 5):
        with pytest.raises(IndexError):
            source.length(index)


def test_without_counts_a_long_clip_gives_one_of_its_chunks(renderer: Renderer) -> None:
    streams = [(timeline(str(i), 40), Telling(40)) for i in range(20)]
    source = samples_of(streams, renderer)
    assert len(source) == 20
    firsts = {source.render(i)[0].spans[-1].second for i in range(20)}
    assert firsts == {11, 23, 35, 39}
    assert source.length(3) == len(source.render(3)[0]) == source.length(3)


def test_clips_cut_early_open_as_a_live_chunk_does(renderer: Renderer) -> None:
    streams = [(timeline(str(i), 30, (said("a", 1.5),)), Telling(30)) for i in range(40)]
    live = StreamSettings(chunk_seconds=100, lead=5)
    source = samples_of(
        streams,
        renderer,
        live,
        cut_share=0.5,
        summarize=lambda gold, turns: f"summary of {gold.clip.id} to {turns[-1].second}",
    )
    whole = opened = 0
    for index in range(40):
        rendered, targets = source.render(index)
        assert source.length(index) == len(rendered)
        ends = [s for s in rendered.spans if s.kind == "end"]
        scored = [s.second for s in ends if s.stop - 1 in targets.positions]
        text = renderer.tokenizer.decode(rendered.ids)
        whole += (scored[0], scored[-1]) == (0, 29)
        if scored[0] == 0:
            assert "summary" not in text
            continue
        opened += 1
        first = ends[0].second
        # `lead` seconds of turns are carried, and memory tells what lies before them, no more.
        assert scored[0] - first == 5
        assert f"summary of {index} to {first - 1}" in text
        assert "say fire when you see it" in text
    assert 10 <= whole <= 30 and opened >= 5


def test_a_second_without_frames_is_left_out(renderer: Renderer) -> None:
    late = Event("late", 3.2, "user", "and tell me more")
    gold = timeline("holes", 10, (said("a", 6.5), late))
    frames = Telling(10, missing=(0, 3, 9))
    source = samples_of([(gold, frames)], renderer)
    assert source.length(0) and frames.decoded == []
    rendered, _ = source.render(0)
    assert source.length(0) == len(rendered)
    assert [s.second for s in rendered.spans if s.kind == "end"] == [1, 2, 4, 5, 6, 7, 8]
    text = renderer.tokenizer.decode(rendered.ids)
    assert "say fire when you see it\n<1.0 seconds>" in text
    assert "and tell me more\n<4.0 seconds>" in text and "<3.0" not in text


def test_fewer_frames_and_other_sizes_are_counted_as_they_are(renderer: Renderer) -> None:
    frames = Telling(6, sizes=((64, 32), (32, 32), (64, 64)), rate=2)
    source = samples_of([(timeline("odd", 6, rate=4), frames)], renderer)
    rendered, _ = source.render(0)
    assert source.length(0) == len(rendered) and rendered.image_count == 12
    # Frames that can't tell are decoded.
    blind = Pictures(6, sizes=((64, 32), (32, 32), (64, 64)), rate=2)
    assert frame_sizes(blind, 1) == frame_sizes(frames, 1) == ((32, 32),) * 2
    assert blind.decoded == [1]
    assert samples_of([(timeline("odd", 6), blind)], renderer).length(0) == len(rendered)


def test_what_comes_after_a_second_changes_nothing_before_it(renderer: Renderer) -> None:
    events = (said("a", 2.5), said("b", 9.5), Event("late", 8.1, "user", "more"))
    gold = timeline("x", 12, events)
    other = replace(
        gold,
        clip=replace(gold.clip, duration=11.0),
        events=(gold.events[0], events[0], said("c", 7.9, "smoke")),
    )
    one, _ = samples_of([(gold, Telling(12))], renderer).render(0)
    two, _ = samples_of([(other, Telling(11))], renderer).render(0)
    # Everything up to the end of second 7's prompt is the same, its action is not.
    end = next(s.start for s in one.spans if s.second == 7 and s.role == "assistant")
    assert one.ids[:end] == two.ids[:end] and one.ids[end] != two.ids[end]
    for at in (one, two):
        assert at.positions[:, :end].tolist() == one.positions[:, :end].tolist()


# -- corpora


def shards(tmp_path: Path, records: list[Any]) -> Corpus:
    """A corpus of turn-based samples, and of clips with or without more labels than a timeline."""

    def record(given: Any) -> Any:
        bare = isinstance(given, tuple) and isinstance(given[0], Timeline)
        return (StreamLabels(given[0]), given[1]) if bare else given

    write_shards(map(record, records), tmp_path / "shards", per_shard=2)
    return open_corpus(tmp_path / "shards", rejects=Rejects(tmp_path / "rejects.jsonl"))


def parts_of(corpus: Corpus, renderer: Renderer, **more: Any) -> Any:
    return corpus_parts(corpus, renderer, LossWeights(), SHORT, **more)


def test_a_corpus_of_streams_and_questions(renderer: Renderer, tmp_path: Path) -> None:
    turn = TurnSample("t", "what?", "a dog", (picture(1), picture(2, (32, 32))), "memory text")
    records = [
        (timeline("long", 30, (said("a", 15.5),)), Pictures(30, missing=(4, 20))),
        turn,
        (timeline("wide", 5), Pictures(5, sizes=((64, 64),), rate=2)),
        (timeline("mixed", 6), Pictures(6, sizes=((64, 32), (32, 32)))),
    ]
    corpus = shards(tmp_path, records)
    parts = {p.name: p for p in parts_of(corpus, renderer, turn_share=0.25, system="Watch.")}
    assert {name: part.weight for name, part in parts.items()} == {
        "streams": 0.75,
        "questions": 0.25,
    }
    streams, questions = parts["streams"].source, parts["questions"].source
    assert (len(streams), len(questions)) == (5, 1) and not corpus.rejects.total
    for source in (streams, questions):
        for index in range(len(source)):
            assert source.length(index) == len(source.render(index)[0])
    rendered, targets = questions.render(0)
    assert rendered.turn_based and set(targets.weights.tolist()) == {1.0}
    assert "memory text" in renderer.tokenizer.decode(rendered.ids)
    seconds = {s.second for s in streams.render(0)[0].spans if s.kind == "end"}
    assert seconds == set(range(12)) - {4}
    rows = PackedRows(list(parts.values()), row_tokens=600, seed=0)
    batch = RowCollator(list(parts.values()))([next(iter(rows))])
    assert batch["input_ids"].numel() <= 600


def test_counting_lengths_decodes_no_stream(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    corpus = shards(tmp_path, [(timeline("a", 30), Pictures(30)), (timeline("b", 9), Pictures(9))])

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded")

    with monkeypatch.context() as patch:
        patch.setattr("joyvl_train.shard_reader.decode", refuse)
        (part,) = parts_of(corpus, renderer)
    assert part.weight == 1.0
    assert [part.source.length(i) for i in range(4)] == [
        len(part.source.render(i)[0]) for i in range(4)
    ]


def test_a_chunk_is_rendered_without_a_look_at_the_others(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    events = (said("a", 5.5), said("b", 25.5))
    records = [(timeline(f"c{n}", 40, events), Pictures(40, missing=(3, 20))) for n in range(6)]
    corpus = shards(tmp_path, records)
    (part,) = parts_of(corpus, renderer)
    expected = [
        chunk.memory_text
        for labels, frames in corpus  # type: ignore[misc]
        for chunk in chunks_of(labels.timeline, frames, SHORT)
    ]
    read: list[int] = []
    real = ShardFrames.frames

    def frames(self: ShardFrames, second: int) -> Any:
        read.append(second)
        return real(self, second)

    def refuse(*_: Any) -> Any:
        raise AssertionError("its size was asked for")

    monkeypatch.setattr(ShardFrames, "frames", frames)
    monkeypatch.setattr(ShardFrames, "sizes", refuse)
    assert len(part.source) == len(expected) == 24
    for index, memory in enumerate(expected):
        read.clear()
        rendered, _ = part.source.render(index)
        seconds = [s.second for s in rendered.spans if s.kind == "end"]
        assert read == seconds and not {3, 20} & set(seconds)
        assert memory in renderer.tokenizer.decode(rendered.ids)
        assert len(rendered) == part.source.length(index)


def test_stored_summaries_open_the_chunks(renderer: Renderer, tmp_path: Path) -> None:
    gold = timeline("long", 40, (said("a", 5.5), said("b", 13.2), said("c", 30.9)))
    told = (Summary(0, 9, "A man cooks."), Summary(9, 15, "He rests."), Summary(21, 33, "Smoke!"))
    corpus = shards(tmp_path, [(StreamLabels(gold, told), Pictures(40)), (gold, Pictures(40))])
    (part,) = parts_of(corpus, renderer)
    texts = [renderer.tokenizer.decode(part.source.render(n)[0].ids) for n in range(8)]
    # Summarized are [0, 9), [9, 21) and [21, 33); in the last three seconds nothing is said.
    for text, shows in zip(texts[:4], ((), told[:1], told[:2], told), strict=True):
        assert [s.text for s in told if s.text in text] == [s.text for s in shows]
    assert not any(s.text in text for text in texts[4:] for s in told)
    assert "5 s assistant: fire" in texts[5]
    for index in range(8):
        assert part.source.length(index) == len(part.source.render(index)[0])


def test_a_run_goes_on_with_its_own_data_alone(renderer: Renderer, tmp_path: Path) -> None:
    def parts(name: str, text: str) -> Any:
        (tmp_path / name).mkdir()
        record = (timeline("a", 5, (said("a", 2.5, text),)), Pictures(5))
        return parts_of(shards(tmp_path / name, [record]), renderer)

    state = next(iter(PackedRows(parts("one", "fire"), row_tokens=600, seed=0))).state
    PackedRows(parts("same", "fire"), row_tokens=600, seed=0, state=state)
    with pytest.raises(UserError, match="1 samples of 'streams', this run from 1 others"):
        PackedRows(parts("other", "smoke"), row_tokens=600, seed=0, state=state)


def test_published_json_with_pictures_on_disk(renderer: Renderer, tmp_path: Path) -> None:
    def item(names: list[str]) -> dict[str, Any]:
        chat = []
        for second in range(len(names)):
            text = "say fire\n<0.0 seconds>" if not second else f"<{second}.0 seconds>"
            chat.append({"role": "user", "content": f"{text}\n<image>"})
            said = "</response> fire" if second == 1 else "</silence>"
            chat.append({"role": "assistant", "content": said})
        return {"messages": chat, "images": names}

    (tmp_path / "a").mkdir()
    for second in range(3):
        picture(second).save(tmp_path / "a" / f"{second}.png")
    turned = picture(7)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    turned.save(tmp_path / "a" / "turned.jpg", exif=exif)
    names = [f"a/{second}.png" for second in range(3)]
    items = [item(names), item([*names, "a/turned.jpg"]), item([*names[:2], "a/none.png"])]
    (tmp_path / "data.json").write_text(json.dumps(items))
    corpus = open_corpus(tmp_path / "data.json")
    (part,) = parts_of(corpus, renderer)
    assert len(part.source) == 2 and corpus.rejects.total == 1
    for index in range(2):
        assert part.source.length(index) == len(part.source.render(index)[0])


def test_what_cannot_be_used_is_counted(renderer: Renderer, tmp_path: Path) -> None:
    unseen = (timeline("unseen", 9, (said("a", 3.5),)), Pictures(9, missing=(3,)))
    past = (timeline("past", 9, (Event("z", 8.5, "user", "hm"),)), Pictures(9, missing=(8,)))
    fine = (timeline("fine", 5), Pictures(5))
    long = (timeline("long", 14), Pictures(14, sizes=((64, 64),), rate=3))
    blank = TurnSample("blank", "<\u2028x", "\u200b ?", (picture(1),))
    corpus = shards(tmp_path, [unseen, past, fine, long, blank])
    parts = parts_of(corpus, renderer, most_tokens=300)
    assert dict(corpus.rejects.counts) == {
        "no frame at a response": 1,
        "text after the last frame": 1,
        "too long": 1,
    }
    streams = next(p.source for p in parts if p.name == "streams")
    # The second chunk of the long clip is short enough.
    assert len(streams) == 2 and max(streams.length(i) for i in range(2)) <= 300
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == [
        "shard-00000 record 0",
        "shard-00000 record 1",
        "shard-00001 record 1 chunk 0",
    ]


def test_a_corpus_with_nothing_to_train_on_is_one_line(renderer: Renderer, tmp_path: Path) -> None:
    unseen = (timeline("unseen", 9, (said("a", 3.5),)), Pictures(9, missing=(3,)))
    corpus = shards(tmp_path, [unseen])
    with pytest.raises(UserError, match="1 no frame at a response") as error:
        parts_of(corpus, renderer)
    assert "\n" not in str(error.value)


def test_a_picture_that_breaks_later_is_counted_and_passed_over(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    corpus = shards(tmp_path, [(timeline("a", 5), Pictures(5)), (timeline("b", 5), Pictures(5))])
    parts = parts_of(corpus, renderer)
    source = parts[0].source
    assert isinstance(source, CorpusStreams)
    real = corpus.__class__.__getitem__

    def get(self: Any, number: int) -> Any:
        found, frames = real(self, number)
        if number == 0:
            frames.frames = lambda second: (_ for _ in ()).throw(FrameError("damaged", "it"))
        return found, frames

    monkeypatch.setattr(corpus.__class__, "__getitem__", get)
    with pytest.raises(FrameError):
        source.render(0)
    assert dict(corpus.rejects.counts) == {"damaged": 1}
    batch = RowCollator(parts)([next(iter(PackedRows(parts, row_tokens=600, seed=0)))])
    assert batch["sample_lengths"] in ([source.length(1)], [source.length(1)] * 2) or all(
        n == source.length(1) for n in batch["sample_lengths"]
    )


def test_frames_that_change_after_counting_are_told(renderer: Renderer) -> None:
    frames = Telling(4)
    source = samples_of([(timeline("a", 4), frames)], renderer)
    monkey = frames.frames
    frames.frames = lambda second: monkey(second)[:0]  # type: ignore[method-assign]
    with pytest.raises(FrameError, match="0 of 1 pictures"):
        source.render(0)


def test_chunks_of_asks_each_second_once() -> None:
    frames = Pictures(20)
    chunks = chunks_of(timeline("a", 20), frames, SHORT)
    assert len(chunks) == 2 and sorted(frames.decoded) == list(range(20))
    assert chunks[1].supervised_from == 12
    assert Response("fire") not in [turn.action for turn in chunks[0].turns]


def test_a_video_tells_its_sizes(renderer: Renderer, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(20):
            for packet in stream.encode(av.VideoFrame.from_image(picture(number, (128, 96)))):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    view = {"cache_dir": tmp_path / "cache", "size": 64, "multiple": 32}
    frames = open_video(tmp_path / "clip.mp4", 2, **view)
    for second in range(frames.seconds):
        assert frames.sizes(second) == tuple(f.size for f in frames.frames(second))
    source = samples_of([(timeline("v", 5), frames)], renderer)
    rendered, _ = source.render(0)
    assert source.length(0) == len(rendered) and rendered.image_count == 10
