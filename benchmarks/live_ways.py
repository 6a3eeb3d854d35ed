"""What a second costs as a stream grows: the whole past anew, a sliding window, and ours.

    python benchmarks/live_ways.py --checkpoint RUN/checkpoint [--longest 480] [--results]

One vLLM, one stream, three ways to ask for its next second, at the same seconds in turn:

- all anew: every prompt holds the whole stream so far, and nothing is taken from the cache (a salt
  of its own for each request), as where a prompt changes at its beginning every second;
- sliding window: the last `--window` seconds. Its first second goes with each new one, so that the
  prefix is another one every time, whatever the server keeps;
- ours: chunks that only grow, with a memory in front (`serve.live`).

Pictures go by name in all three, so that none is sent or prepared twice. Tokens are those of the
server's counters; times are medians of `--repeats` seconds in a row at each length.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import served_live as lived
from benchmarks.result_page import drawing, finish, page, row, versions
from joyvl_train.actions import Silence
from joyvl_train.chat_request import chat, name_of, names_of
from joyvl_train.llm import BudgetError, LLMError
from joyvl_train.stream import Stream, StreamSettings
from serve.chat_model import ChatModel
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.memory import Said

RESULTS = Path(__file__).parent / "results" / "live_ways.md"
FAR = 10**6
WAYS = ("all anew", "sliding window", "ours")


async def asked(model: ChatModel, stream: Stream, held: frozenset[str], salt: str) -> None:
    """One second of a stream whose prompt is made here. salt: nothing is shared beyond it."""
    await model.client.ask(
        chat(stream, names=True, held=held),
        max_tokens=model.max_new_tokens,
        temperature=0.0,
        extra={"skip_special_tokens": False, **({"cache_salt": salt} if salt else {})},
    )


def whole(pictures: lived.Pictures, model: ChatModel, first: int, last: int) -> Stream:
    """A stream of these seconds in one chunk, silent but for the last, open one."""
    stream = Stream(StreamSettings(FAR, 10))
    for second in range(first, last + 1):
        given = lived.second_of(pictures, 0, second)
        stream.observe(second, tuple(map(model.frame, given.frames)), given.queries)
        if second < last:
            stream.act(Silence())
    return stream


async def measured(
    url: str,
    model: ChatModel,
    live: Live,
    pictures: lived.Pictures,
    way: str,
    second: int,
    window: int,
) -> tuple[float, float]:
    """Seconds that a step took, and tokens that it computed."""
    before = await lived.counted(url)
    if way == "ours":
        begun = time.perf_counter()
        await live.step(lived.second_of(pictures, 0, second))
        took = time.perf_counter() - begun
    else:
        first = 0 if way == "all anew" else max(0, second - window + 1)
        stream = whole(pictures, model, first, second)
        # What was shown before goes by its name, as it would have since its own second.
        held = names_of(stream) - {name_of(stream.turns[-1].frames[-1])}
        salt = f"{second}" if way == "all anew" else ""
        begun = time.perf_counter()
        await asked(model, stream, held, salt)
        took = time.perf_counter() - begun
    after = await lived.counted(url)
    return took, after.asked - before.asked - (after.found - before.found)


def report(found: dict[int, dict[str, list[tuple[float, float]]]], given: Any) -> None:
    """Prints the page, or keeps it."""
    heads = ["seconds of stream", *(f"{way}: ms" for way in WAYS), *(f"{w}: tokens" for w in WAYS)]
    rows = [row(heads), row(["---"] * len(heads))]
    plots: dict[str, dict[str, list[tuple[float, float]]]] = {"a second's step, ms": {}}
    plots["tokens computed in it"] = {}
    for length, ways in found.items():
        cells = [str(length)]
        for place, (title, times) in enumerate(zip(plots, (1e3, 1.0), strict=True)):
            for way in WAYS:
                values = [told[place] * times for told in ways.get(way, [])]
                middle = statistics.median(values) if values else float("nan")
                cells.append(f"{middle:.1f}" if values else "past the server's limit")
                plots[title].setdefault(way, []).append((length, middle))
        rows.append(row(cells))
    last = found[max(found)]
    times = {way: statistics.median(t for t, _ in last[way]) for way in WAYS if way in last}
    note = [
        f"Medians of {given.repeats} seconds each; the sliding window has {given.window} s, our "
        f"chunks {StreamSettings().chunk_seconds}. At the longest: "
        + ", ".join(f"{way} {t / times['ours']:.1f} times ours" for way, t in times.items()),
        "",
        f"![Time and tokens by the length of the stream]({RESULTS.stem}.svg)",
    ]
    text = page("A second of a long stream", "live_ways.py", versions("aiohttp"), rows, note)
    if given.results:
        drawing(RESULTS.with_suffix(".svg"), plots, "seconds of stream")
    finish(RESULTS, text, given.results)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    lived.add_arguments(parser)
    parser.add_argument("--longest", type=int, default=480, help="seconds of the stream")
    parser.add_argument("--window", type=int, default=100, help="seconds of the sliding window")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    lengths = [n for n in (20, 40, 80, 120, 160, 240, 320, 400, 480) if n <= given.longest]
    found: dict[int, dict[str, list[tuple[float, float]]]] = {}
    async with lived.vllm(given, images=given.longest + 16) as url:
        model, _ = await lived.model_at(url, limit=24)
        pictures = lived.Pictures()
        settings = LiveSettings(modes={"default": given.bias}, step_timeout=60.0)
        live = Live("bench", model, settings, keeper=Said)
        for second in range(max(lengths) + given.repeats):
            at = next((n for n in lengths if n <= second < n + given.repeats), None)
            if at is None:
                await live.step(lived.second_of(pictures, 0, second))
                continue
            ways = [*WAYS[second % 3 :], *WAYS[: second % 3]]
            for way in ways:
                try:
                    told = await measured(url, model, live, pictures, way, second, given.window)
                except BudgetError:
                    raise
                except LLMError as error:  # a prompt longer than the server takes
                    print(f"{way} at {second} s: {error}", file=sys.stderr)
                    continue
                found.setdefault(at, {}).setdefault(way, []).append(told)
        await live.close()
        await model.end()
    report(found, given)


if __name__ == "__main__":
    asyncio.run(main())
