"""The code of frames by itself: how fast it is, how many references it takes, and what for.

    python benchmarks/codec.py [--frames 200] [--results]

Speed is that of `Encoder.push` on one thread, on frames of 640x480, beside what the same machine
takes to decode such a frame from JPEG in the same run. The sources: a still picture with the noise
of a sensor, a picture that pans, one that changes altogether every ten frames, and streams of the
rendered world. Of each: references among its frames, the vision tokens of a frame where the others
have 4 of 36, as in small runs, and how many frames of a fixed rate, every n-th a reference, would
be needed so that no frame is further from what its last reference shows than the code lets it be.

Then the prompt and the time of a second by the length of a stream, for how often its picture
changes altogether: frames of 192x192, whole, coded, and every fourth whole, to the kept base in
process, the three in turn. What coded frames cost in F1 is told by `coded_frames.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import finish, page, row, versions
from data_pipeline.world.corpus import WorldStreams, family_weights
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.codec import CodecSettings, Encoder
from joyvl_train.engine import Engine
from joyvl_train.pictures import decode, encode
from joyvl_train.rendering import Renderer
from joyvl_train.stream import StreamSettings
from serve.session import Session, Tick

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "codec.md"
WHOLE, SMALL = 36, 4  # tokens of a frame of 192x192, and of a predicted one

Frames = Iterable[Image.Image]


def plain(seed: int, size: tuple[int, int]) -> Image.Image:
    """A picture of coarse patches, as rooms and streets have them."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (size[1] // 40, size[0] // 40, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def noisy(picture: Image.Image, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 4, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def still(count: int) -> Iterator[Image.Image]:
    picture = plain(0, (640, 480))
    return (noisy(picture, number) for number in range(count))


def panning(count: int) -> Iterator[Image.Image]:
    wide = plain(1, (640 + 8 * count, 480))
    return (wide.crop((8 * i, 0, 8 * i + 640, 480)) for i in range(count))


def cutting(count: int) -> Iterator[Image.Image]:
    return (noisy(plain(number // 10, (640, 480)), number) for number in range(count))


def world(count: int) -> Iterator[Iterator[Image.Image]]:
    """Streams of the rendered world, each by itself."""
    streams = WorldStreams("validation", 5, 40, family_weights((), {}), "drawn", 192)
    left = count
    for number in range(len(streams)):
        timeline, frames = streams[number]
        seconds = range(int(timeline.clip.duration))
        shown = [frames.frames(second)[0] for second in seconds if frames.frames(second)]
        yield iter(shown[:left])
        left -= len(shown)
        if left <= 0:
            return


def coded(streams: Iterable[Frames], settings: CodecSettings) -> tuple[int, int, Mapping[str, int]]:
    """(frames, references, references by reason), each stream begun anew."""
    frames = 0
    why: dict[str, int] = {}
    for stream in streams:
        encoder = Encoder(settings)
        for frame in stream:
            frames += 1
            found = encoder.push(frame)
            if found.reference:
                why[found.why] = why.get(found.why, 0) + 1
    return frames, sum(why.values()), why


def fixed(streams: Iterable[list[Image.Image]], settings: CodecSettings) -> int:
    """The largest n for which every n-th frame as a reference leaves no stretch between two whose
    costs, as the code reckons them, add up to more than it allows (drift) or pass its bound (cut);
    1 where only every frame will do."""
    free = CodecSettings(settings.block, settings.search, 1e9, 1e9, 1, 10**9)
    n = settings.longest + 1
    for frames in streams:
        encoder = Encoder(free)
        costs = [encoder.push(frame).cost for frame in frames]
        while n > 1 and not all(
            max(costs[at + 1 : at + n], default=0) <= settings.cut
            and sum(costs[at + 1 : at + n]) <= settings.drift
            for at in range(0, len(costs), n)
        ):
            n -= 1
    return n


def speed(frames: list[Image.Image]) -> tuple[float, float]:
    """Frames a second of the code and of decoding them from JPEG, in turns."""
    files = [encode(frame) for frame in frames]
    encoder, spent = Encoder(), [0.0, 0.0]
    for frame, file in zip(frames, files, strict=True):
        begun = time.perf_counter()
        encoder.push(frame)
        between = time.perf_counter()
        decode(file)
        spent[0] += between - begun
        spent[1] += time.perf_counter() - between
    return len(frames) / spent[0], len(frames) / spent[1]


def table(count: int) -> list[str]:
    """The rows of all sources."""
    settings = CodecSettings()
    made: dict[str, Callable[[], list[list[Image.Image]]]] = {
        "still, with noise": lambda: [list(still(count))],
        "panning": lambda: [list(panning(count))],
        "a cut every ten frames": lambda: [list(cutting(count))],
        "the rendered world": lambda: [list(stream) for stream in world(count)],
    }
    heads = ("source", "frames", "references", "why", "tokens a frame", "fixed rate", "its tokens")
    lines = [row(heads), row(["---"] * len(heads))]
    for name, streams in made.items():
        shown = streams()
        frames, references, why = coded(shown, settings)
        n = fixed(shown, settings)
        tokens = (WHOLE * references + SMALL * (frames - references)) / frames
        told = ", ".join(f"{reason} {number}" for reason, number in sorted(why.items()))
        every = f"every {n}." if n > 1 else "all"
        whole = sum(-(-len(stream) // n) for stream in shown)
        its = (WHOLE * whole + SMALL * (frames - whole)) / frames
        cells = (f"{frames}", f"{references}", told, f"{tokens:.1f}", every, f"{its:.1f}")
        lines.append(row([name, *cells]))
    return lines


WAYS: Mapping[str, CodecSettings | None] = {
    "whole": None,
    "coded": CodecSettings(),
    "every 4th whole": CodecSettings(cut=1e9, drift=1e9, gap=1, longest=4),
}


def scene(change: int, second: int) -> Image.Image:
    """A second of a stream whose picture is another every `change` seconds."""
    return noisy(plain(second // change, (192, 192)), second)


def lengths(engine: Engine, changes: Sequence[int], seconds: int) -> list[str]:
    """Rows: tokens of the prompt and time of a second, at some seconds of a chunk."""
    marks = [n for n in (10, 25, 50, 100) if n <= seconds]
    heads = ["a cut every", "seconds", *(f"{way}: tokens" for way in WAYS)]
    heads += [f"{way}: ms" for way in WAYS]
    lines = [row(heads), row(["---"] * len(heads))]
    for change in changes:
        streams = {
            way: Session(engine, StreamSettings(seconds + 20, 10, codec=codec))
            for way, codec in WAYS.items()
        }
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        for second in range(seconds):
            for way, session in streams.items():
                begun = time.perf_counter()
                session.step(Tick(second, (scene(change, second),)))
                took[way].append(time.perf_counter() - begun)
            if second + 1 in marks:
                tokens = [f"{prompt(engine, session)}" for session in streams.values()]
                middle = [f"{1e3 * statistics.median(took[way][-10:]):.1f}" for way in WAYS]
                often = f"{change} s" if change < 10**6 else "never"
                lines.append(row([often, str(second + 1), *tokens, *middle]))
        for session in streams.values():
            session.close()
    return lines


def prompt(engine: Engine, session: Session[Engine]) -> int:
    """Tokens of the session's prompt as it stands."""
    stream = session.stream
    return len(engine.renderer.render(stream.memory_text, stream.turns, system=engine.system).ids)


def kept() -> Engine:
    """The kept base, of whose replies the first token alone is taken: seconds cost alike."""
    model, processor = load_for_inference(ROOT / "models" / "tiny")
    return Engine(model, Renderer(processor), max_new_tokens=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=200, help="of each source, at most")
    parser.add_argument("--seconds", type=int, default=100, help="of streams that are stepped")
    parser.add_argument("--results", action="store_true", help="keep the page under results/")
    given = parser.parse_args(arguments)
    own, decoding = speed(list(islice(panning(given.frames), 100)))
    lines = [
        f"{own:.0f} frames of 640x480 a second on one thread; decoding them from JPEG: "
        f"{decoding:.0f}.",
        "",
        *table(given.frames),
        "",
        *lengths(kept(), (10**6, 20, 5), given.seconds),
    ]
    text = page("The code of frames", "codec.py", versions("numpy", "pillow"), lines, [])
    finish(RESULTS, text, given.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
