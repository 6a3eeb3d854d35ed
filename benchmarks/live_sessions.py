"""How many streams one engine follows at a second each, beside what it could at best.

    python benchmarks/live_sessions.py --checkpoint RUN/checkpoint [--engine vllm] [--results]

The floor: streams that ask the engine for their next second as soon as they have the last, with
nothing between them and it; the most seconds a second over several numbers of streams. Then live
sessions (`serve.sessions`), fed a picture each second by the clock, as many as are a share of that
floor. Past it pictures drop and are counted, and how long a picture waits for its answer stays
bounded. Everything shares this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import served_live as lived
from benchmarks.result_page import finish, page, row, versions
from joyvl_train.actions import Silence
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream
from serve.in_process import InProcess
from serve.live_settings import LiveSettings, Model
from serve.memory import Said
from serve.sessions import Limits, Served, Sessions
from serve.sources import Sources

RESULTS = Path(__file__).parent / "results" / "live_sessions.md"
SHARES = {"vllm": (0.5, 0.8, 1.0, 1.5), "in_process": (0.3, 0.5, 0.65, 0.8)}
"""Of the floor. What a stream keeps of its past bounds how many fit this process's memory."""


@dataclass
class Watched:
    """What so many live sessions came to in `seconds`."""

    sessions: int
    seconds: float
    steps: int
    dropped: int
    waits: list[float]
    """Seconds from a picture to its answer."""
    failed: int


async def floor(model: Model, pictures: lived.Pictures, streams: int, seconds: float) -> float:
    """Steps a second of so many streams that never wait for a picture."""
    over = time.monotonic() + seconds
    steps = 0

    async def go(number: int) -> None:
        nonlocal steps
        stream = Stream()
        handle = model.open(stream)
        second = 0
        while time.monotonic() < over:
            given = lived.second_of(pictures, number, second)
            stream.observe(second, tuple(map(model.frame, given.frames)), given.queries)
            reply = await model.reply(handle)
            stream.act(reply.action or Silence())
            second += 1
            steps += time.monotonic() < over
        model.close(handle)

    await asyncio.gather(*(go(number) for number in range(streams)))
    return steps / seconds


async def watched(
    model: Model, pictures: lived.Pictures, count: int, seconds: float, bias: float
) -> Watched:
    """So many sessions, each given a picture every second."""
    settings = LiveSettings(modes={"default": bias}, step_timeout=10.0)
    served = Served("bench", [model], lambda _: Said(), settings)
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = Sessions([served], Sources(), Path(folder), limits=Limits(sessions=count))

        async def go(number: int) -> None:
            _, found = sessions.open({"kind": "push"})
            put: dict[int, float] = {}
            begun = time.monotonic() + number / count  # their seconds don't end together

            async def answers() -> None:
                async for event in found.live.log.follow():
                    if event["kind"] == "step":
                        waits.append(time.monotonic() - put.pop(event["second"]))

            hearing = asyncio.create_task(answers())
            for second in range(int(seconds)):
                await asyncio.sleep(max(0.0, begun + second - time.monotonic()))
                given = lived.second_of(pictures, number, second)
                put[second] = time.monotonic()
                found.watched.feed.put(given)
            await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
            hearing.cancel()

        begun = time.monotonic()
        await asyncio.gather(*(go(number) for number in range(count)))
        took = time.monotonic() - begun
        counts = sessions.counted()
        dropped = sum(each.watched.feed.dropped for _, each in sessions)
        await sessions.close()
    return Watched(count, took, counts["step"], dropped, waits, counts["engine"])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    lived.add_arguments(parser)
    parser.add_argument("--engine", choices=("vllm", "in_process"), action="append")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    heads = ["engine", "share of the floor", "sessions", "steps a second", "pictures answered",
             "dropped", "engine errors", "picture to answer: median, ms", "p95, ms"]  # fmt: skip
    rows, note = [row(heads), row(["---"] * len(heads))], []
    pictures = lived.Pictures()
    for engine in given.engine or ("vllm", "in_process"):
        async with AsyncExitStack() as stack:
            model = await opened(engine, given, stack)
            best = {n: await floor(model, pictures, n, given.seconds / 3) for n in (4, 12, 36)}
            most = max(best.values())
            told = ", ".join(f"{rate:.1f} with {n} streams" for n, rate in best.items())
            note.append(f"- {engine}: the floor is **{most:.1f} seconds a second** ({told}).")
            print(note[-1], flush=True)
            for share in SHARES[engine]:
                count = max(1, round(share * most))
                found = await watched(model, pictures, count, given.seconds, given.bias)
                rows.append(told_row(engine, share, found))
                print(rows[-1], flush=True)
    command = f"live_sessions.py --seconds {given.seconds:g}"
    text = page("Live sessions at once", command, versions("torch", "aiohttp"), rows, note)
    finish(RESULTS, text, given.results)


async def opened(engine: str, given: Any, stack: AsyncExitStack) -> Model:
    """The model in this process, or on vLLM."""
    if engine == "in_process":
        loaded, processor = load_for_inference(given.checkpoint, "float32")
        return await stack.enter_async_context(InProcess(Engine(loaded, Renderer(processor))))
    model, _ = await lived.model_at(await stack.enter_async_context(lived.vllm(given)))
    stack.push_async_callback(model.end)
    return model


def told_row(engine: str, share: float, found: Watched) -> str:
    put = found.steps + found.dropped
    waits = sorted(found.waits) or [float("nan")]
    return row(
        [
            engine,
            f"{share:g}",
            str(found.sessions),
            f"{found.steps / found.seconds:.1f}",
            f"{100 * found.steps / max(put, 1):.1f} %",
            str(found.dropped),
            str(found.failed),
            f"{1e3 * waits[len(waits) // 2]:.0f}",
            f"{1e3 * lived.p95(waits):.0f}",
        ]
    )


if __name__ == "__main__":
    asyncio.run(main())
