"""Hours of one live stream on real vLLM: does a second cost what it cost at the start?

    python benchmarks/live_hours.py --checkpoint RUN/checkpoint [--hours 2.5] [--results]
    python benchmarks/live_hours.py --canned --hours 12 [--results]

One session lives for so long, as fast as the model answers, with questions, delegated sums and a
memory that the model itself keeps. For a chunk in every half hour a fresh session is stepped beside
it, in turn, at the same place in the chunk, and the server's own counters tell what each step
computed. The engine's time is measured at the socket; all else of a step is the runtime's. Where it
goes on past the time at which memory is full, so do the measures.

`--canned` has a process that answers at once in place of vLLM, and measures the memory of the
runtime's own process: its slope once the stream's memory is full, with the 95 % bound, from means
of quarters of an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import served_live as lived
from benchmarks.fresh_process import memory_of
from benchmarks.result_page import drawing, finish, page, row, versions
from joyvl_train.stream import StreamSettings
from serve.bridge import Bridge
from serve.chat_model import ChatModel
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.memory import Seen
from serve.solvers import UseTools
from serve.tools import calculate

RESULTS = Path(__file__).parent / "results" / "live_hours.md"
MEMORY = RESULTS.with_name("live_memory.md")
STREAM = StreamSettings()
FULL = (STREAM.limits.mid * (1 + STREAM.limits.long)) * STREAM.chunk_seconds
"""Seconds after which the tiers of the memory are full."""


@dataclass
class Beside:
    """A chunk in which a fresh session went beside the old one: per step (aged, fresh)."""

    hour: float
    took: list[tuple[float, float]] = field(default_factory=list)
    engine: list[tuple[float, float]] = field(default_factory=list)
    asked: list[tuple[float, float]] = field(default_factory=list)
    """Tokens of the prompt."""
    computed: list[tuple[float, float]] = field(default_factory=list)

    def ratio(self, values: list[tuple[float, float]]) -> float:
        aged, fresh = zip(*values[1:], strict=True)  # the boundary apart
        return lived.p95(aged) / lived.p95(fresh)

    def most_over(self) -> float:
        """The most that a step computed beyond what was new in it, boundaries apart."""
        over = []
        for place in range(2, len(self.asked)):
            for one in (0, 1):
                new = self.asked[place][one] - self.asked[place - 1][one]
                over.append(self.computed[place][one] - new)
        return max(over)


class Run:
    """The sessions and what is taken down of them."""

    def __init__(self, url: str, model: ChatModel, timed: lived.Timed, asks: ChatModel, given: Any):
        self.url, self.model, self.timed, self.asks = url, model, timed, asks
        self.settings = LiveSettings(STREAM, modes={"default": given.bias}, step_timeout=60.0)
        self.pictures = lived.Pictures()
        count = int(given.hours * 3600)
        # Made and filled before: what is measured must not grow by being measured.
        self.took = np.full(count, np.nan)
        self.engine = np.full(count, np.nan)
        self.prompt = np.full(count, np.nan)
        self.memory = np.full(count // 10 + 1, np.nan)
        self.beside: list[Beside] = []
        self.opened = 0

    def open(self) -> Live:
        self.opened += 1
        return Live(
            "bench",
            self.model,
            self.settings,
            keeper=lambda: Seen(self.asks.ask),
            bridge=partial(Bridge, UseTools({"calculator": calculate}), timeout=10.0),
        )

    async def step(self, live: Live, number: int, second: int) -> tuple[float, float, float]:
        """Seconds of a step and of the engine in it, and the prompt's tokens."""
        given = lived.second_of(self.pictures, number, second)
        before, spent = self.model.client.usage.prompt_tokens, self.timed.spent
        begun = time.perf_counter()
        await live.step(given)
        took = time.perf_counter() - begun
        tokens = self.model.client.usage.prompt_tokens - before
        return took, self.timed.spent - spent, tokens

    async def chunk_beside(self, live: Live, start: int) -> None:
        """A chunk of the old session, and one of a fresh one."""
        fresh, number = self.open(), self.opened
        found = Beside(start / 3600)
        for place in range(STREAM.chunk_seconds):
            told: dict[int, tuple[float, float, float, float]] = {}
            for one in (0, 1) if place % 2 else (1, 0):
                await lived.rested(live)
                await lived.rested(fresh)
                before = await lived.counted(self.url)
                session = (live, 0, start + place) if one == 0 else (fresh, number, place)
                took, engine, tokens = await self.step(*session)
                after = await lived.counted(self.url)
                computed = after.asked - before.asked - (after.found - before.found)
                told[one] = took, engine, tokens, computed
            self._take(start + place, *told[0][:3])
            for values, at in zip(
                (found.took, found.engine, found.asked, found.computed), range(4), strict=True
            ):
                values.append((told[0][at], told[1][at]))
        await fresh.close()
        self.beside.append(found)

    def _take(self, second: int, took: float, engine: float, tokens: float) -> None:
        self.took[second], self.engine[second], self.prompt[second] = took, engine, tokens
        if second % 10 == 0:
            self.memory[second // 10] = memory_of("RssAnon")

    async def live(self, every: float) -> Live:
        """The whole of it."""
        live, count = self.open(), len(self.took)
        hours = np.arange(every, 100, every) if every < 100 else ()
        chunks = {int(hour * 3600) // STREAM.chunk_seconds for hour in hours}
        second = 0
        with tqdm(total=count, unit="s", mininterval=10) as bar:
            while second < count:
                place = second % STREAM.chunk_seconds
                whole = second + STREAM.chunk_seconds <= count
                if place == 0 and second // STREAM.chunk_seconds in chunks and whole:
                    await self.chunk_beside(live, second)
                    bar.update(STREAM.chunk_seconds)
                    second += STREAM.chunk_seconds
                    continue
                if place == STREAM.chunk_seconds - 1:
                    await lived.rested(live)  # real time would have been enough for it
                self._take(second, *await self.step(live, 0, second))
                bar.update()
                second += 1
        return live


def slope(memory: np.ndarray, start: int) -> tuple[float, float]:
    """MiB an hour and the upper 95 % bound, from means of quarters of an hour from `start` on."""
    size = 90  # points of 10 s
    points = memory[start // 10 :]
    means = [points[n : n + size].mean() for n in range(0, len(points) - size + 1, size)]
    if len(means) < 4:
        return math.nan, math.nan
    hours = np.arange(len(means)) * 0.25
    found, at = np.polyfit(hours, means, 1)
    off = np.asarray(means) - (found * hours + at)
    free = len(means) - 2
    error = math.sqrt(float(off @ off) / free / float(((hours - hours.mean()) ** 2).sum()))
    # Student's quantile, drawn: no package with a table of it is needed for this alone.
    quantile = np.percentile(np.random.default_rng(0).standard_t(free, 10**6), 97.5)
    return float(found), float(found + quantile * error)


def told(run: Run, live: Live, share: float, given: Any, seconds: float) -> str:
    """The page."""
    rows = [
        row(["hour", "p95 aged, ms", "p95 fresh, ms", "ratio", "of the engine alone",
             "prompt aged / fresh", "computed, mean", "most beyond what is new"]),
        row(["---"] * 8),
    ]  # fmt: skip
    for each in run.beside:
        aged, fresh = zip(*each.took[1:], strict=True)
        prompts = [np.mean([asked[one] for asked in each.asked]) for one in (0, 1)]
        computed = [np.mean([c[one] for c in each.computed[1:]]) for one in (0, 1)]
        rows.append(
            row(
                [
                    f"{each.hour:.2f}",
                    f"{1e3 * lived.p95(aged):.1f}",
                    f"{1e3 * lived.p95(fresh):.1f}",
                    f"{each.ratio(each.took):.2f}",
                    f"{each.ratio(each.engine):.2f}",
                    f"{prompts[0]:.0f} / {prompts[1]:.0f}",
                    f"{computed[0]:.1f} / {computed[1]:.1f}",
                    f"{each.most_over():.0f}",
                ]
            )
        )
    overhead = 1e3 * (run.took - run.engine)
    every = [pair for each in run.beside for pair in each.took[1:]]
    aged, fresh = zip(*every, strict=True)
    hours = len(run.took) / 3600
    note = [
        f"- {hours:g} hours of stream in {seconds / 60:.0f} minutes. All chunks together: p95 aged "
        f"over fresh **{lived.p95(aged) / lived.p95(fresh):.3f}**.",
        f"- The runtime's own time a step, all but the engine's: median {np.median(overhead):.1f} "
        f"ms, p95 **{lived.p95(overhead):.1f} ms**.",
        f"- Prompt tokens found in the prefix cache: **{100 * share:.1f} %** of all that were sent."
        f" The longest prompt had {np.nanmax(run.prompt):.0f} tokens; memory is full after "
        f"{FULL / 3600:.1f} hours, and the longest after that had "
        f"{np.nanmax(run.prompt[FULL:], initial=0):.0f}.",
        f"- Events: {', '.join(f'{n} {k}' for k, n in sorted(live.counts.items()))}.",
    ]
    note.append(
        "- `most beyond what is new`: tokens that a step computed more than its prompt had grown "
        f"by; vLLM caches whole blocks, here of {lived.BLOCK} tokens, so that the rest of one is "
        "computed again. A chunk's first two steps are apart."
    )
    note += ["", f"![Step time and prompt by the hour]({RESULTS.stem}.svg)"]
    command = f"live_hours.py --hours {given.hours:g}"
    return page("Hours of one stream", command, versions("aiohttp", "openai"), rows, note)


def memory_told(run: Run, live: Live, given: Any, seconds: float) -> str:
    """The page of the process's memory."""
    found, bound = slope(run.memory, FULL)
    overhead = 1e3 * (run.took - run.engine)
    rows = [row(["hour", "memory of the process, MiB", "longest prompt, KiB"]), row(["---"] * 3)]
    for hour in range(math.ceil(len(run.took) / 3600)):
        part = slice(hour * 360, (hour + 1) * 360)
        longest = np.nanmax(run.prompt[hour * 3600 : (hour + 1) * 3600]) * 4 / 1024
        rows.append(row([str(hour + 1), f"{np.nanmean(run.memory[part]):.1f}", f"{longest:.1f}"]))
    note = [
        f"- {len(run.took) / 3600:g} hours of one stream in {seconds / 60:.0f} minutes; the memory "
        f"of the stream is full after {FULL / 3600:.1f} hours. From there on the process's own "
        f"grows by {found:+.3f} MiB an hour, upper 95 % bound **{bound:+.3f}** (target: 1).",
        f"- The runtime's own time a step: median {np.median(overhead):.1f} ms, p95 "
        f"{lived.p95(overhead):.1f} ms.",
        f"- Events: {', '.join(f'{n} {k}' for k, n in sorted(live.counts.items()))}.",
        "- A process that answers at once and knows nothing stands in for vLLM: silence mostly, a "
        "response in a second out of fourteen, a sum handed over in one out of a hundred.",
        "",
        f"![Memory by the hour]({MEMORY.stem}.svg)",
    ]
    command = f"live_hours.py --canned --hours {given.hours:g}"
    return page("Memory over hours", command, versions("aiohttp", "openai"), rows, note)


def series(run: Run, canned: bool) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """What is drawn: by quarter hours."""
    size = 900
    starts = range(0, len(run.took), size)
    prompt = {
        name: [(s / 3600, float(pick(run.prompt[s : s + size]))) for s in starts]
        for name, pick in (("longest", np.max), ("mean", np.mean))
    }
    if canned:
        means = [np.nanmean(run.memory[s // 10 : (s + size) // 10]) for s in starts]
        told = [(s / 3600, float(mean)) for s, mean in zip(starts, means, strict=True)]
        sizes = {name: [(h, 4 * n / 1024) for h, n in line] for name, line in prompt.items()}
        return {"memory of the process, MiB": {"mean": told}, "prompt, KiB": sizes}
    kinds = {"all": run.took, "the engine": run.engine, "the runtime": run.took - run.engine}
    step = {
        f"p95 of {name}": [(s / 3600, 1e3 * lived.p95(values[s : s + size])) for s in starts]
        for name, values in kinds.items()
    }
    return {"step, ms": step, "prompt, tokens": prompt}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    lived.add_arguments(parser)
    parser.add_argument("--hours", type=float, default=2.5, help="of the stream")
    parser.add_argument("--every", type=float, default=0.5, help="hours between comparisons")
    parser.add_argument("--canned", action="store_true", help="no vLLM: measure memory alone")
    parser.add_argument("--results", action="store_true", help="write the page under results/")
    given = parser.parse_args()
    begun = time.monotonic()
    async with lived.canned() if given.canned else lived.vllm(given) as url:
        (model, timed), (asks, _) = await lived.model_at(url), await lived.model_at(url)
        run = Run(url, model, timed, asks, given)
        live = await run.live(math.inf if given.canned else given.every)
        seconds = time.monotonic() - begun
        if given.canned:
            text = memory_told(run, live, given, seconds)
        else:
            share = (await lived.counted(url)).share or 0.0
            text = told(run, live, share, given, seconds)
        await live.close()
        await model.end()
        await asks.end()
    out = MEMORY if given.canned else RESULTS
    if given.results:
        drawing(out.with_suffix(".svg"), series(run, given.canned), "hours of stream")
    finish(out, text, given.results)


if __name__ == "__main__":
    asyncio.run(main())
