"""Decoding against raw decord, the size of the cache, and a second pass over cached frames.

    python benchmarks/frames.py [--seconds 60] [--video FILE ...] [--rounds 3]

Makes H.264 clips of moving texture (640x480 and 1280x720, 30 frames a second), unless videos are
named, and takes 1 or 2 frames a second of them, resized to 256 pixels on the longest side. In each
round every way runs once, one after another, on the same file. The figure is the shortest time
over the rounds, which other work on the machine disturbs least; processor time, which it hardly
disturbs at all, stands beside it. Ways:

raw decord     `VideoReader.get_batch` of the wanted frames, nothing else done with them
decord, PyAV   our pass by that decoder: choose by time stamps, resize, JPEG, write the cache file
cached         open the video again and decode every second's pictures from the cache file
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np
import PIL
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page
from joyvl_train.frames import open_video
from joyvl_train.video import probe

RESULTS = Path(__file__).parent / "results" / "frames.md"
LONGEST_SIDE = 256


def make_clip(path: Path, width: int, height: int, seconds: int, seed: int = 0) -> None:
    """A window that moves over a smooth random texture, with sensor noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height)), np.int16)
    noise = rng.normal(0, 4, (8, height, width, 3)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "25"}
        for k in range(seconds * 30):
            x, y = 3 * k % width, 2 * k % height
            picture = texture[y : y + height, x : x + width] + noise[k % 8]
            picture = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def raw_decord(path: Path, rate: int) -> None:
    reader = decord.VideoReader(str(path), num_threads=2)
    fps = reader.get_avg_fps()
    wanted = [round(k * fps / rate) - 1 for k in range(1, int(len(reader) * rate / fps) + 1)]
    for index in wanted:
        reader.get_batch([index]).asnumpy()


def our_pass(path: Path, rate: int, decoder: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        open_video(path, rate, cache_dir=cache, size=LONGEST_SIDE, decoder=decoder)


def second_pass(path: Path, rate: int, cache: Path) -> int:
    video = open_video(path, rate, cache_dir=cache, size=LONGEST_SIDE)
    for second in range(video.seconds):
        video.frames(second)
    return video.cache_bytes


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processors."""
    start, worked = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - worked


def measure(path: Path, rate: int, rounds: int) -> tuple[dict[str, tuple[float, float]], int]:
    """Clock and processor seconds of each way on one file, and its cache file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        size = second_pass(path, rate, cache)  # builds the cache that `cached` reads
        ways: dict[str, Callable[[], object]] = {
            "raw decord": lambda: raw_decord(path, rate),
            "decord": lambda: our_pass(path, rate, "decord"),
            "PyAV": lambda: our_pass(path, rate, "pyav"),
            "cached": lambda: second_pass(path, rate, cache),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                times[name].append(timed(run))
    best = {}
    for name, found in times.items():
        clock, processor = zip(*found, strict=True)
        best[name] = (min(clock), min(processor))
    return best, size


def row(path: Path, rate: int, best: dict[str, tuple[float, float]], size: int) -> str:
    source = probe(path)

    def cell(name: str) -> str:
        clock, processor = best[name]
        return f"{source.duration / clock:.0f} ({source.duration / processor:.0f})"

    def ratio(name: str, other: str) -> str:
        clock, processor = (a / b for a, b in zip(best[name], best[other], strict=True))
        return (
            f"{clock:.2f}x ({processor:.2f}x)" if clock < 5 else f"{clock:.0f}x ({processor:.0f}x)"
        )

    cells = [
        f"{source.size[0]}x{source.size[1]}, {source.duration:.0f} s",
        str(rate),
        *map(cell, ("raw decord", "decord", "PyAV", "cached")),
        ratio("raw decord", "decord"),
        ratio("raw decord", "PyAV"),
        f"**{ratio('raw decord', 'cached')}**",
        ratio("decord", "cached"),
        f"{size / 1024:.0f} KiB ({size / path.stat().st_size:.0%})",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--video", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    head = [
        "clip",
        "frames/s kept",
        "raw decord",
        "ours, decord",
        "ours, PyAV",
        "cached",
        "ours, decord / raw",
        "ours, PyAV / raw",
        "cached / raw",
        "cached / ours",
        "cache file",
    ]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        videos = list(arguments.video)
        if not videos:
            for width, height in ((640, 480), (1280, 720)):
                videos.append(Path(folder) / f"{width}x{height}.mp4")
                make_clip(videos[-1], width, height, arguments.seconds)
        for path in videos:
            for rate in (1, 2):
                best, size = measure(path, rate, arguments.rounds)
                rows.append(row(path, rate, best, size))
                print(rows[-1], flush=True)
    packages = [
        f"PyAV {av.__version__}",
        f"decord {decord.__version__}",
        f"Pillow {PIL.__version__}",
    ]
    note = [
        "Columns 3-6: seconds of video a second by the clock and, in brackets, a second of",
        "processor time; columns 7-10: ratios of those. Raw decord hashes, checks, resizes,",
        "encodes and writes nothing; ours does all of these; cached reads the pictures back.",
        f"Frames are kept at {LONGEST_SIDE} pixels on the longest side. The cache file's size",
        "is also given as a share of the video's.",
    ]
    command = f"frames.py --seconds {arguments.seconds} --rounds {arguments.rounds}"
    title = "Frames: decoding, cache size, second pass"
    keep(arguments.out, page(title, command, packages, rows, note))


if __name__ == "__main__":
    main()
