"""Sources of samples: lengths are exact, chunks are a live stream's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.world import stills
from data_pipeline.world.corpus import WorldStreams
from data_pipeline.world.marking import still_marks
from data_pipeline.world.past import past
from data_pipeline.world.streams import FAMILIES
from joyvl_train.actions import Response
from joyvl_train.codec import CodecSettings
from joyvl_train.frames import open_video
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Renderer
from joyvl_train.samples import (
    QuestionSamples,
    chunk_counts,
    chunks_of,
    frame_sizes,
    question_frames,
)
from joyvl_train.stream import StreamSettings, told_apart
from joyvl_train.timeline import Event
from joyvl_train.video import FrameError

from .conftest import picture
from .noise_clips import SHORT, Pictures, Telling, said, samples_of, timeline

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


def test_a_clip_that_stands_late_in_its_stream_is_the_same_but_for_its_clock_and_memory(
    renderer: Renderer,
) -> None:
    streams = WorldStreams("train", 5, 24, dict.fromkeys(FAMILIES, 1.0), "drawn", 32)
    cut, side = StreamSettings(), (32, 32)
    plain = samples_of(streams, renderer, cut, frame_size=side)
    late = samples_of(streams, renderer, cut, frame_size=side, late_share=1.0, past=past)
    some = samples_of(streams, renderer, cut, frame_size=side, late_share=0.5, past=past)
    read = renderer.tokenizer.decode
    kinds = set()
    for index in range(len(streams)):
        (before, told), (rendered, targets) = plain.render(index), late.render(index)
        assert late.length(index) == len(rendered)
        text = read(rendered.ids)
        start, same = (max(s.second for s in each.spans) for each in (rendered, before))
        start -= same
        assert start >= 90 and f"<{start}.0 seconds>" in text and "<0.0 seconds>" not in text
        memory = text.split("Earlier:")[-1].split("<")[0]
        assert "Earlier:" in text or streams[index][0].opening
        assert f"to {start} s:" in memory or streams[index][0].opening
        # The same pictures, and the same words with the same weights.
        for name, tensor in before.images.items():
            assert (tensor == rendered.images[name]).all()
        words = [
            [each.ids[i] for i in of.positions]
            for each, of in ((before, told), (rendered, targets))
        ]
        assert words[0] == words[1] and (told.weights == targets.weights).all()
        kinds.add(some.length(index) == late.length(index))
    assert kinds == {True, False}


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
        lambda _: item,
        1,
        renderer,
        side=64,
        marks=lambda still, predicted: np.arange(4 * count) % 2,
    )
    rendered, targets = source.render(0)
    image = np.asarray(rendered.ids) == renderer.processor.image_id
    assert image.sum() == 4 * count
    assert targets.marks is not None
    assert targets.marks[image, 0].tolist() == [0, 1] * (2 * count)
    assert (targets.marks[~image] == UNKNOWN).all()
    bare = QuestionSamples(lambda _: item, 1, renderer, side=64, marks=lambda *_: None)
    assert bare.render(0)[1].marks is None


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["watch", "each", "summarize"]))
def test_a_still_whose_frames_are_turns_is_read_as_they_are_coded(
    renderer: Renderer, seed: int, kind: str
) -> None:
    item = stills.still(seed, "train", kind=kind, backgrounds=("plain",))
    coding = StreamSettings(codec=CodecSettings(side=32))
    seen: list[tuple[bool, ...]] = []

    def marks(still: stills.Still, predicted: tuple[bool, ...]) -> np.ndarray | None:
        seen.append(predicted)
        return None

    source = QuestionSamples(lambda _: item, 1, renderer, side=64, settings=coding, marks=marks)
    rendered, _ = source.render(0)
    assert source.length(0) == len(rendered)
    predicted = seen[0] or (False,) * len(item.times)
    assert not predicted[0] and len(predicted) == len(item.times)
    count = sum(s.stop - s.start for s in rendered.spans if s.kind == "image")
    assert count == sum(1 if change else 4 for change in predicted)
    assert renderer.tokenizer.decode(rendered.ids).count("~") == sum(predicted)
    if kind != "watch":  # several frames of one turn are whole
        whole = QuestionSamples(lambda _: item, 1, renderer, side=64).render(0)[0]
        assert not any(predicted) and rendered.ids == whole.ids


def test_of_coded_stills_what_is_marked_is_to_be_seen() -> None:
    marked = hidden = 0
    coding = StreamSettings(codec=CodecSettings())
    for seed in range(60):
        item = stills.still(seed, "train", kind="watch", backgrounds=("plain",))
        shown = question_frames(item, 192, coding)
        pictures, predicted = told_apart(shown)
        marks = still_marks(item, predicted, side=192, pictures="drawn", change_side=64)
        if marks is None or not predicted:
            continue
        at = 0
        for shot, change, scene, now in zip(
            pictures, predicted, item.scenes, item.times, strict=True
        ):
            cells = marks[at : at + (4 if change else 36)]
            at += len(cells)
            if change:
                grey = np.abs(np.asarray(shot, int) - 128).max(axis=2)
                seen = grey.reshape(2, 32, 2, 32).max(axis=(1, 3)).reshape(-1) > 20
                assert seen[cells == 1].all()
                marked += int(cells.sum())
                there = {(t.picture, t.colour) for t, _ in scene.visible(now)}
                there |= {(name, "") for name, _ in there}
                # It is there, and has been: nothing of it is to be seen.
                hidden += bool(there & set(item.sought)) and not cells.any()
        assert at == len(marks)
    assert marked > 40 and hidden > 40


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
