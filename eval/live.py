"""A case in real time: served over RTSP as a video, and read by the runtime's own reader."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from eval.case import Case
from eval.play import Played, Player, charged
from eval.systems import System
from joyvl_train.config import UserError
from joyvl_train.frames import Frames
from joyvl_train.heldout import Trace
from serve.source import SourceError, rtsp

RATE = 5
"""Frames a second of a case as a video."""


def write_video(path: Path, frames: Frames, rate: int = RATE) -> None:
    """The pictures of a case as H.264, each second's shown from its start on: a reader that takes
    the last picture of a second gets that second's."""
    with av.open(str(path), "w") as container:
        image = next(frames.frames(t)[-1] for t in range(frames.seconds) if frames.frames(t))
        stream = container.add_stream("libx264", rate=rate)
        # Even sides, as the codec wants them, and a key picture a second.
        stream.width, stream.height = (side // 2 * 2 for side in image.size)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "g": str(rate), "bf": "0", "tune": "zerolatency"}
        for second in range(frames.seconds):
            shown = frames.frames(second)
            image = shown[-1] if shown else image
            whole = image.convert("RGB").resize((stream.width, stream.height))
            for _ in range(rate):
                for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(whole))):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """The videos of a folder over RTSP on this machine: the address that their names are added
    to. port: 0 for any free one."""
    try:
        import aio_rtsp_toolkit.server as server
    except ImportError as error:
        raise UserError(
            f"command=live: no server for RTSP ({error}); install one, "
            "`pip install 'aio-rtsp-toolkit[server]'`"
        ) from None
    with socket.socket() as probe:
        if not port:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    loop = asyncio.new_event_loop()
    up = threading.Event()
    server.logger = logging.getLogger("rtsp")  # it prints every request otherwise
    made = server.RtspServer(str(folder), "127.0.0.1", port)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(made.start())
        up.set()
        loop.run_forever()
        # Streams that are still sent are told to end, or their threads would wait for ever.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=10) if left else asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run, name="rtsp", daemon=True)
    thread.start()
    if not up.wait(10):
        raise UserError(f"command=live: the server for RTSP did not start on port {port}")
    try:
        yield f"rtsp://127.0.0.1:{port}/"
    finally:
        asyncio.run_coroutine_threadsafe(made.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def play_live(
    case: Case, seconds: int, system: System, url: str, *, side: int, seed: int = 0
) -> Played:
    """What `system` does on a case that is served at `url` in real time. `latencies` are how long
    after the end of its second each was answered."""
    player = Player(case, seconds, seed)
    watcher = system.watch(case.id, case.timeline.opening, seed)
    latencies = [0.0] * seconds
    begun: float | None = None
    told = 0
    try:
        for shown in rtsp(url, side=side, most_seconds=seconds):
            begun = time.monotonic() - shown.arrived if begun is None else begun
            done = watcher.step(player.tick(shown.second, shown.frames))
            behind = time.monotonic() - begun - (shown.second + 1)
            latencies[shown.second] = round(max(behind, 0.0), 4)
            told = shown.second + 1
            if done is not None:
                player.note(done.step, None if done.task is None else done.task.number)
    finally:
        watcher.close()
    if told < seconds:
        raise SourceError(f"{url}: ended after {told} of {seconds} seconds; see to the server")
    return Played(player.trace(system.name), tuple(latencies))


def as_heard(played: Played, slack: float = 0.5) -> Trace:
    """The trace with what was said later moved to the second in which it was heard: `slack`
    seconds are taken for the way through codec and network, and parts of a second are dropped."""
    late = tuple(max(0.0, value - slack) for value in played.latencies)
    return charged(replace(played, latencies=late))


def shift(one: Trace, two: Trace) -> int | None:
    """The most seconds by which what was said in the two traces lies apart, in order; None where
    they say other things."""
    first, second = one.emissions, two.emissions
    if [e.text for e in first] != [e.text for e in second]:
        return None
    return max((abs(a.second - b.second) for a, b in zip(first, second, strict=True)), default=0)
