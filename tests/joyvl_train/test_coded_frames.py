"""What stands for frames that say little new: the small picture, and when it does."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_pipeline.world.corpus import WorldStreams, family_weights
from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.checkpoint import Processor
from joyvl_train.chunks import queries_by_second, results_by_second
from joyvl_train.codec import CodecSettings
from joyvl_train.coded_frames import CodedFrames, FrameCoder, Shown, change, coded, colours
from joyvl_train.frames import Frames
from joyvl_train.rendering import Renderer
from joyvl_train.samples import StreamSamples, chunks_of
from joyvl_train.stream import Predicted, StreamSettings
from joyvl_train.timeline import actions
from joyvl_train.weights import LossWeights
from rl.windows import Window, open_window
from serve.session import Session, Tick
from tests.serve.test_session import Said, Script
from tests.tiny_training import tiny


def scene(*things: tuple[int, int, str], noise: int = 0) -> Image.Image:
    image = Image.new("RGB", (192, 192), (90, 120, 90))
    for x, y, colour in things:
        ImageDraw.Draw(image).rectangle((x, y, x + 47, y + 47), fill=colour)
    levels = np.asarray(image, np.int16)
    rng = np.random.default_rng(noise)
    return Image.fromarray(
        np.clip(levels + rng.integers(-noise, noise + 1, levels.shape), 0, 255).astype(np.uint8)
    )


def changed(frame: Image.Image, before: Image.Image) -> np.ndarray:
    """What is shown of a frame after one that was seen whole."""
    return np.asarray(change(colours(frame, 64), colours(before, 64))[0])


def test_what_is_as_it_was_is_grey_and_what_came_is_in_its_place() -> None:
    before, now = scene((96, 96, "blue")), scene((96, 96, "blue"), (0, 48, "red"))
    shown = changed(now, before)
    assert shown.shape == (64, 64, 3)
    assert (shown[16:32, 0:16] == (255, 0, 0)).all()
    rest = shown.copy()
    rest[16:32, 0:16] = 128
    assert (rest == 128).all()
    # Where it leaves, what is there instead.
    assert (changed(before, now)[16:32, 0:16] == (90, 120, 90)).all()


def test_noise_is_no_change() -> None:
    assert (changed(scene(noise=7), scene(noise=8)) == 128).all()


@pytest.mark.parametrize("levels", [2, 5, 9])
def test_what_comes_little_by_little_is_shown(levels: int) -> None:
    """By steps of which each alone would be taken for noise."""
    start = scene((48, 48, "black"))
    steps = range(0, 200, levels)
    shown = told_so_far = colours(start, 64)
    for level in steps:
        now = colours(scene((48, 48, f"rgb({level},{level},{level})")), 64)
        _, shown = change(now, shown)
        apart = np.abs(now - shown) // 256
        assert apart.max() <= 10 + 3 * levels
    assert np.abs(shown - told_so_far).max() // 256 > 160


def test_a_thing_that_fades_in_is_seen() -> None:
    coder = FrameCoder(StreamSettings(codec=CodecSettings()))
    seen = 0.0
    for second in range(15):
        mixed = Image.blend(scene(), scene((48, 48, "red")), second / 14)
        for each in coder.push(second, [mixed]):
            if isinstance(each, Predicted):
                reds = np.asarray(each.frame, int)[17:31, 17:31, 0] - 128
                seen += np.abs(reds).mean()
    assert seen > 60


def test_another_size_is_a_reference() -> None:
    coder = FrameCoder(StreamSettings(codec=CodecSettings()))
    for second, frame in enumerate([scene(), scene(), scene().resize((96, 96))]):
        (shown,) = coder.push(second, [frame])
        assert isinstance(shown, Predicted) == (second == 1)


def test_frames_after_some_that_are_missing_are_seen_whole() -> None:
    coder = FrameCoder(StreamSettings(codec=CodecSettings()))
    coder.push(0, [scene()])
    (shown,) = coder.push(1, [scene()], anew=True)
    assert not isinstance(shown, Predicted)


def test_it_has_the_tokens_that_its_size_says() -> None:
    processor: Processor = tiny()[1]
    grid = processor.images([Image.fromarray(changed(scene(), scene()))])["image_grid_thw"]
    whole = processor.images([scene()])["image_grid_thw"]
    assert int(grid.prod()) * 9 == int(whole.prod())


# A stream's frames

CHUNKED = StreamSettings(20, 5, codec=CodecSettings(drift=12, longest=9))


class Film:
    """A clip's frames, with some seconds that have none."""

    def __init__(self, frames: Frames, without: Sequence[int] = ()) -> None:
        self._frames, self._without = frames, without
        self.asked: list[int] = []

    @property
    def seconds(self) -> int:
        return self._frames.seconds

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        self.asked.append(second)
        return () if second in self._without else self._frames.frames(second)


def film(seed: int = 3, seconds: int = 60, without: Sequence[int] = (), side: int = 96) -> Film:
    timeline = stream("counting", seed, "train", seconds=seconds)
    return Film(WorldFrames(timeline, side), without)


def told(shown: Sequence[Shown]) -> list[tuple[bool, bytes]]:
    """Whether it shows a change, and what it shows."""
    return [
        (True, each.frame.tobytes()) if isinstance(each, Predicted) else (False, each.tobytes())
        for each in shown
    ]


@pytest.mark.parametrize("without", [(), (7, 8, 31)])
def test_a_clip_is_coded_alike_live_in_any_order_and_anew(without: tuple[int, ...]) -> None:
    coder = FrameCoder(CHUNKED)
    source = film(without=without)
    live = [told(coder.push(second, source.frames(second))) for second in range(60)]
    assert 0 < sum(change for second in live for change, _ in second) < 60
    order = random.Random(0).sample(range(60), 60)
    again = CodedFrames(film(without=without), CHUNKED)
    found = {second: told(again.frames(second)) for second in order}
    assert [found[second] for second in range(60)] == live
    for second in (0, 15, 35, 55):  # what each chunk's first turn holds is whole
        assert live[second] and not live[second][0][0]
    for second in without:
        if second + 1 not in without:
            assert not live[second + 1][0][0]


def test_a_stretch_is_coded_by_itself() -> None:
    source = film()
    found = told(CodedFrames(source, CHUNKED).frames(36))
    assert source.asked == [35, 36]  # a chunk carries over the seconds from 35 on
    assert found == told(CodedFrames(film(), CHUNKED).frames(36))


def test_later_frames_change_nothing() -> None:
    one, other = film(3), film(4)
    for cut in (9, 17, 44):
        spliced = [FrameCoder(CHUNKED), FrameCoder(CHUNKED)]
        for second in range(60):
            sources = (one, one if second <= cut else other)
            shown = [
                told(coder.push(second, source.frames(second)))
                for coder, source in zip(spliced, sources, strict=True)
            ]
            assert second > cut or shown[0] == shown[1]


def test_what_is_trained_on_is_what_a_stream_and_a_window_show() -> None:
    """The turns of a sample's chunks, a live session's, and a window's prompt are the same."""
    timeline = stream("counting", 3, "train", seconds=60)
    gold = actions(timeline)
    frames = WorldFrames(timeline, 96)
    session = Session(Script(dict(enumerate(gold))), CHUNKED)
    queries, results = queries_by_second(timeline), results_by_second(timeline)
    live = {}
    for second in range(60):
        texts = queries.get(second, ()), results.get(second, ())
        session.begin(Tick(second, frames.frames(second), *texts))
        turn = session.stream.open_turn
        assert turn is not None
        live[second] = (turn.predicted, [each.tobytes() for each in turn.frames])
        session.finish(Said("?", gold[second]))
    shown = coded(frames, CHUNKED)
    for chunk in chunks_of(timeline, shown, CHUNKED):
        for turn in chunk.turns:
            own = turn.showing(shown.frames(turn.second))
            assert (own.predicted, [each.tobytes() for each in own.frames]) == live[turn.second]
            assert own.predicted == turn.predicted
    # A window that opens where a chunk does sees what that chunk shows.
    opened = open_window(Window(0, "silence", 40, 48, 44), timeline, frames, CHUNKED)
    for turn in opened.stream.turns:
        if turn.second >= 35:
            assert (turn.predicted, [f.tobytes() for f in turn.frames]) == live[turn.second]
    first = [turn.second for turn in opened.stream.turns]
    assert first == list(range(first[0], 40))
    # One that opens elsewhere begins with a whole frame all the same.
    opened = open_window(Window(0, "silence", 33, 40, 36), timeline, frames, CHUNKED)
    opened.stream.observe(33, opened.show(33))
    assert opened.stream.turns[0].second == 28 and not opened.stream.turns[0].predicted
    assert any(turn.predicted for turn in opened.stream.turns)


def test_samples_lengths_are_those_of_what_is_rendered() -> None:
    _, processor = tiny()
    streams = WorldStreams("train", 0, 30, family_weights((), {}), "drawn", 96)
    samples = StreamSamples(
        streams,
        Renderer(processor),
        LossWeights(),
        StreamSettings(20, 5, codec=CodecSettings(side=32)),
        frame_size=(96, 96),
        cut_share=0.5,
    )
    marked = 0
    for index in range(len(streams)):
        length = samples.length(index)
        rendered, _ = samples.render(index)
        assert length == len(rendered)
        images = [s.stop - s.start for s in rendered.spans if s.kind == "image"]
        assert set(images) <= {9, 1} and images[0] == 9
        text = processor.tokenizer.decode(rendered.ids)
        assert text.count(" seconds> ~") == images.count(1)
        marked += images.count(1)
    assert marked
