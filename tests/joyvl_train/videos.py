"""Small video files whose every frame tells its number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

VARIABLE = [0, 0.1, 0.5, 1.0, 1.2, 4.9, 5.0, 5.05, 7.7]

STEP = 10  # of grey from one frame to the next, so that a picture tells its number


def grey(number: int, width: int, height: int) -> np.ndarray:
    picture = np.full((height, width, 3), number * STEP % 250, np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    return picture


def make_video(
    path: Path,
    times: list[float],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    rotation: int = 0,
    sound: tuple[float, float] | None = None,
    base: Fraction = Fraction(1, 90000),
    **options: str,
) -> Path:
    """Frame k, of grey k * STEP with a red top left quarter, stands at times[k]."""
    with av.open(str(path), "w", options=options.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.time_base = stream.codec_context.time_base = base
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "12", "bf": "2", **options}
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=16000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(grey(number, *size), "rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None and sound is not None:
            write_sound(container, voice, *sound)
    return path


def write_sound(container, voice, start: float, stop: float) -> None:
    for k in range(int((stop - start) * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate, frame.pts = 16000, round(start * 16000) + k * 1024
        container.mux(voice.encode(frame))
    container.mux(voice.encode())


def number_of(image: Image.Image) -> int:
    """The number of the frame that a picture shows, modulo 25."""
    corner = np.asarray(image)[-3:, -3:].mean()
    return round(corner / STEP)
