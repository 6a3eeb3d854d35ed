"""From an event in front of a camera to the text at a client, over RTSP.

    python benchmarks/live_latency.py --checkpoint RUN/checkpoint [--minutes 6] [--results]

A video in which something flashes up at random moments is served over RTSP on this machine in real
time, watched by a live session, and followed over its WebSocket. The engine is stepped for each
second as ever; what it says is replaced: a word in the second in which the flash is first seen, so
that the runtime's share is measured and not the model's. When a picture leaves the server and when
it is decoded here are taken down, and their difference is the transport; what the session tells of
its step is the step.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import serve.source
from benchmarks import served_live as lived
from benchmarks.result_page import finish, page, row, versions
from eval.live import served
from joyvl_train.actions import Response, Silence
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.engine import Engine
from joyvl_train.heldout import Answer
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream
from serve.chat_model import ChatReply
from serve.client import Client
from serve.in_process import InProcess
from serve.live_settings import LiveSettings
from serve.memory import Said
from serve.server import Server
from serve.sessions import Served, Sessions
from serve.sources import Sources

RESULTS = Path(__file__).parent / "results" / "live_latency.md"
RATE = 10
WIDTH, HEIGHT = 320, 240
WORD = "Now."
BRIGHT = 180
BITS = 14


@dataclass
class Times:
    """When each picture left the server, and when it came out of the decoder, by its number."""

    sent: dict[int, float] = field(default_factory=dict)
    decoded: dict[int, float] = field(default_factory=dict)

    def transport(self, number: int) -> float:
        return self.decoded[number] - self.sent[number]


class Flashes:
    """Steps `model`, and says a word when a bright picture follows a dark one."""

    cache: float | None = None

    def __init__(self, model: InProcess) -> None:
        self._model = model
        self._streams: dict[int, Stream] = {}

    def open(self, stream: Stream, seed: int | None = None) -> int:
        handle = self._model.open(stream, seed)
        self._streams[handle] = stream
        return handle

    def close(self, handle: int) -> None:
        del self._streams[handle]
        self._model.close(handle)

    def lean(self, handle: int, silence_bias: float) -> None:
        self._model.lean(handle, silence_bias)

    def frame(self, image: Image.Image) -> Image.Image:
        return image

    async def ask(self, question: str, frames: Any) -> str:
        return await self._model.ask(question, frames)

    async def reply(self, handle: int) -> Answer:
        await self._model.reply(handle)
        turns = self._streams[handle].turns
        bright = [float(np.asarray(turn.frames[-1]).mean()) > BRIGHT for turn in turns[-2:]]
        new = bright[-1] and not (len(bright) > 1 and bright[0])
        return ChatReply("", Response(WORD) if new else Silence(), None)


def film(path: Path, seconds: int, seed: int) -> list[int]:
    """A grey video with flashes, a second and a fifth long; the pictures at which they begin."""
    rng = random.Random(seed)
    starts, at = [], 4 * RATE
    while at < (seconds - 4) * RATE:
        starts.append(at)
        at += rng.randint(3 * RATE, 7 * RATE)
    lit = {n + k for n in starts for k in range(RATE + RATE // 5)}
    noise = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": str(RATE), "bf": "0", "tune": "zerolatency"}
        for number in range(seconds * RATE):
            base = 225 if number in lit else 90
            shown = noise.integers(base - 8, base + 8, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
            whole = np.kron(shown, np.ones((8, 8, 1), np.uint8))
            for bit in range(BITS):  # a picture tells its number
                whole[:20, 20 * bit : 20 * bit + 20] = 235 * (number >> bit & 1) + 10
            for packet in stream.encode(av.VideoFrame.from_ndarray(whole)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return starts


def watch_times(times: Times) -> None:
    """From now on `times` is told when pictures leave the server, and when they are decoded."""
    from aio_rtsp_toolkit.server_session import RtspServerSession

    send = RtspServerSession._send_rtp_packet
    plain = serve.source.timed

    async def noted(self: Any, state: Any, payload: bytes, timestamp: int, marker: int) -> None:
        times.sent.setdefault(round(timestamp / 90_000 * RATE), time.monotonic())
        await send(self, state, payload, timestamp, marker)

    def seen(frames: Iterable[Any]) -> Iterator[Any]:
        def taken() -> Iterator[Any]:
            for frame in frames:
                marks = frame.to_ndarray(format="gray")[10, 10 : 20 * BITS : 20] > 128
                number = sum(int(mark) << bit for bit, mark in enumerate(marks))
                times.decoded.setdefault(number, time.monotonic())
                yield frame

        return plain(taken())

    RtspServerSession._send_rtp_packet = noted
    serve.source.timed = seen


async def followed(url: str, address: str, count: int) -> list[tuple[int, float, float]]:
    """The first `count` words of a session that watches `address`: (second, when the client had it,
    how long the step took)."""
    told: list[tuple[int, float, float]] = []
    async with Client(url) as client, client.session({"kind": "rtsp", "url": address}) as session:
        async for event in session.events():
            if event["kind"] == "step" and event["text"] == WORD:
                told.append((event["second"], time.monotonic(), event["latency"]))
            ended = event["kind"] == "source" and event["state"] in ("lost", "ended")
            if len(told) >= count or ended:
                return told
    return told


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    lived.add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    times = Times()
    watch_times(times)
    loaded, processor = load_for_inference(given.checkpoint, "float32")
    with tempfile.TemporaryDirectory() as folder:
        starts = film(Path(folder) / "film.mp4", int(60 * given.minutes), given.seed)
        with served(Path(folder)) as root:
            async with InProcess(Engine(loaded, Renderer(processor))) as engine:
                model = Flashes(engine)
                settings = LiveSettings(side=lived.SIDE)
                sources = Sources(rtsp=[root], side=480)
                made = Served("bench", [model], lambda _: Said(), settings)
                server = Server(Sessions([made], sources, Path(folder) / "kept"))
                await server.start()
                url = f"http://127.0.0.1:{server.port}"
                heard = await followed(url, f"{root}film.mp4", len(starts))
                await server.stop()
    report(times, starts, heard, given)


def report(
    times: Times, starts: list[int], heard: list[tuple[int, float, float]], given: Any
) -> None:
    """Prints the page, or keeps it."""
    parts: dict[str, list[float]] = {
        "event to text": [],
        "transport": [],
        "step": [],
        "what is left of it": [],
    }
    for (_, at, step), start in zip(heard, starts, strict=False):
        whole = at - times.sent[start]
        # The second's last picture is what the step waits for.
        carried = times.transport(start)
        for name, value in zip(parts, (whole, carried, step, whole - carried - step), strict=True):
            parts[name].append(value)
    rows = [row(["", "median, ms", "p95, ms", "longest, ms"]), row(["---"] * 4)]
    for name, values in parts.items():
        figures = (np.median(values), np.percentile(values, 95), max(values))
        rows.append(row([name, *(f"{1e3 * figure:.0f}" for figure in figures)]))
    left = float(np.percentile(parts["what is left of it"], 95))
    note = [
        f"{len(heard)} of {len(starts)} events were heard of, over {given.minutes:g} minutes at "
        f"{RATE} pictures a second. `what is left` is the wait for the end of the event's second, "
        f"and the runtime: its p95 is **{left:.3f} s** (bound: 1 s). Over the first and the last "
        f"half of the events its median is "
        + " and ".join(
            f"{np.median(half):.2f} s" for half in np.array_split(parts["what is left of it"], 2)
        )
        + ".",
    ]
    command = f"live_latency.py --minutes {given.minutes:g}"
    text = page("From event to text", command, versions("av", "aio-rtsp-toolkit"), rows, note)
    finish(RESULTS, text, given.results)


if __name__ == "__main__":
    asyncio.run(main())
