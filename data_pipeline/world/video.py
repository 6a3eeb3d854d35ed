"""A scene as an MP4 file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipeline.world.scene import Scene, SceneError, draw

_CLOCK = 90000
"""Ticks a second of the time stamps, as is usual for video."""


def write_video(
    scene: Scene,
    path: Path,
    rate: float = 10.0,
    *,
    width: int | None = None,
    height: int | None = None,
    times: Sequence[float] | None = None,
) -> int:
    """Write the scene to `path` as MP4 and return how many frames it has.

    Frame i shows the moment i / rate; `times` (growing, seconds) gives the moments themselves
    instead, for a variable frame rate. Sides must be even, as the codec (H.264, or MPEG-4 where
    PyAV was built without it) halves the colour. Raises `SceneError` for what can't be written.
    The file is written under a temporary name and then renamed.
    """
    width = scene.width if width is None else width
    height = scene.height if height is None else height
    if width % 2 or height % 2:
        raise SceneError(f"video: sides must be even, not {width}x{height}")
    if not 0 < rate <= 240:
        raise SceneError(f"video: rate {rate!r} is outside (0, 240]")
    if times is None:
        times = [i / rate for i in range(math.ceil(scene.duration * rate - 1e-6))]
    if not times or any(b <= a for a, b in zip(times, times[1:], strict=False)):
        raise SceneError("video: the times of the frames must grow")
    unfinished = path.with_name(f".{path.name}.part")
    ends = [*times[1:], scene.duration]
    try:
        with av.open(str(unfinished), "w", format="mp4") as container:
            stream = _stream(container, width, height, rate)
            for time, end in zip(times, ends, strict=True):
                frame = av.VideoFrame.from_ndarray(
                    np.asarray(draw(scene, time, width, height)), format="rgb24"
                )
                frame.pts = round(time * _CLOCK)
                frame.duration = max(1, round((end - time) * _CLOCK))
                frame.time_base = Fraction(1, _CLOCK)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(times)


def _stream(
    container: av.container.OutputContainer, width: int, height: int, rate: float
) -> av.VideoStream:
    whole = Fraction(rate).limit_denominator(1001)
    if "libx264" in av.codecs_available:
        # One thread and no look-ahead across frames keep the bytes the same on every machine.
        options = {"crf": "16", "preset": "veryfast", "bf": "0"}
        stream = container.add_stream("libx264", rate=whole, options=options)
    else:
        stream = container.add_stream("mpeg4", rate=whole, options={"qscale": "3"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _CLOCK)
    stream.codec_context.thread_count = 1
    return stream
