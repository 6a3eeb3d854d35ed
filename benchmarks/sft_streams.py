"""What both trainers of `sft_throughput.py` train on: the models, the streams, the video."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIDE = 64
WORDS = ["the red ball rolls left and a dog runs by", "seconds", "fire now", "it is over there"]


def build(model: str) -> tuple[Any, Any]:
    """(model, processor), random."""
    from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer

    tokenizer = train_tokenizer(WORDS * 3, 420)
    shape = TinyShape(vocabulary=len(tokenizer), side=SIDE)
    if model == "wide":
        shape = TinyShape(
            vocabulary=151_936,
            hidden=512,
            layers=6,
            heads=8,
            kv_heads=4,
            feed_forward=1536,
            vision_hidden=256,
            vision_layers=6,
            vision_feed_forward=1024,
            side=SIDE,
        )
    return build_tiny(tokenizer, shape, 0)


class Streams:
    """Streams of the given seconds (a `collate.Source`); their pictures come from one video."""

    def __init__(self, processor: Any, lengths: Sequence[int], video: Path, cached: bool) -> None:
        from joyvl_train.rendering import Renderer

        self.renderer = Renderer(processor)
        self._lengths = lengths
        self._video = video
        self._cached = cached
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, index: int) -> int:
        if index not in self._known:
            shape = self.renderer.shape((SIDE, SIDE))
            self._known[index] = self.renderer.length("", self._turns(index, [()] * 9999), shape)
        return self._known[index]

    def render(self, index: int) -> Any:
        from joyvl_train.weights import LossWeights, token_weights

        rendered = self.renderer.render("", self._turns(index, self._pictures(index)))
        return rendered, token_weights(rendered, LossWeights())

    def _pictures(self, index: int) -> Sequence[tuple[Any, ...]]:
        from joyvl_train.decoding import Decoding, decoders
        from joyvl_train.frames import open_video
        from joyvl_train.video import probe

        seconds = self._lengths[index]
        if self._cached:
            video = open_video(self._video, 1, cache_dir=self._video.parent, size=(SIDE, SIDE))
            return [video.frames(second) for second in range(seconds)]
        source = probe(self._video)
        pictures = iter(Decoding(source, 1, decoders(source)[0]))
        found = [next(pictures) for _ in range(seconds)]
        return [(p.resize((SIDE, SIDE)),) for p in found if p is not None]

    def _turns(self, index: int, pictures: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        from joyvl_train.actions import Response, Silence
        from joyvl_train.stream import Stream, StreamSettings

        rng = random.Random(index)
        stream = Stream(StreamSettings(chunk_seconds=1000, lead=2))
        for second in range(self._lengths[index]):
            queries = ["say what you see"] if second == 0 else []
            # For lengths a place stands for the picture.
            stream.observe(second, pictures[second] or (None,), queries)
            stream.act(Response("the red ball") if rng.random() < 0.1 else Silence())
        return stream.turns


def make_video(path: Path, seconds: int) -> None:
    """Noise that changes every frame, ten a second, 256x256."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 256
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast"}
        for _ in range(10 * seconds + 10):
            coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(coarse, "rgb24")))
        container.mux(stream.encode())


def pack(lengths: Mapping[int, int], row: int) -> list[list[int]]:
    """Samples into rows of `row` tokens, first fit, longest first."""
    rows: list[list[int]] = []
    for index in sorted(lengths, key=lambda i: -lengths[i]):
        for members in rows:
            if sum(lengths[i] for i in members) + lengths[index] <= row:
                members.append(index)
                break
        else:
            rows.append([index])
    return rows
