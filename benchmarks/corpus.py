"""A corpus against plain rendering and decoding, two workers against one, memory, and reruns.

    python benchmarks/corpus.py [--streams 4000] [--videos 8] [--seconds 120] [--results]

Everything is run in processes of its own, one after another, side by side in one run:

rendered   streams of the world: their scripts and pictures alone (raw), as JPEG too, and
           `recipe=corpus`
converted  a table of events on H.264 videos made here (640x480, 30 frames a second, seeded texture
           that moves): the wanted frames out of decord alone (raw), or PyAV, decoded once into the
           cache, and `recipe=corpus source=events`
workers    rendered streams with one worker and with two
memory     the most that the process holds, for corpora of several sizes
reruns     a corpus that agents verify, over HTTP, made, made again, and made elsewhere with the
           answers that are kept; the endpoint says yes to all and counts what it is asked

The figure of a way is the shortest time over `--rounds`; processor time, which other work on the
machine disturbs less, stands beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import PIL
import pyarrow

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also where it is spawned

from benchmarks.frames import make_clip, raw_decord
from benchmarks.fresh_process import Took, measured
from data_pipeline.sources import world
from data_pipeline.world.corpus import PLAIN_MIX, family_weights
from data_pipeline.world.streams import WorldFrames
from joyvl_train.cli import compose, main
from joyvl_train.frames import encode, open_video
from joyvl_train.run import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "corpus.md"
PHASES = ("plan", "work", "settle", "write")
YES = '{"reason": "It is there.", "verdict": "yes"}'
LONGEST_SIDE = 384


def corpus(folder: Path, *overrides: str) -> dict[str, tuple[float, float]]:
    """One run of the recipe into `folder`, start-up and all; what its phases took."""
    told = folder.with_suffix(".txt")
    with told.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = main(["recipe=corpus", f"run.dir={folder}", *overrides], ROOT)
    if code:
        raise RuntimeError(f"recipe=corpus failed: {told.read_text()[-500:]}")
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {row["phase"]: (row["seconds"], row["processor_seconds"]) for row in rows}


def best(ways: dict[str, Callable[[], Took]], rounds: int) -> dict[str, Took]:
    """The quickest of each way, run in turn."""
    found: dict[str, list[Took]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, run in ways.items():
            found[name].append(run())
            print(f"  {name}, {number + 1} of {rounds}: {found[name][-1].seconds:.1f} s")
    return {name: min(each, key=lambda took: took.seconds) for name, each in found.items()}


# The ways


def world_options(streams: int, per_part: int, workers: int = 1) -> list[str]:
    return [
        f"source.streams={streams}",
        f"corpus.per_part={per_part}",
        f"executor.workers={workers}",
    ]


def render(streams: int, jpeg: bool) -> None:
    """The scripts and pictures that a corpus of so many streams is made of, and nothing else."""
    config = compose(ROOT, ["recipe=corpus", f"source.streams={streams}"])
    families = family_weights(config.data.families, config.data.mix)
    given = world.read(
        streams, config.seed, "train", families, "drawn", frames_per_second=1, backgrounds=PLAIN_MIX
    )
    for item in given:
        frames = WorldFrames(item.timeline, config.data.size)  # type: ignore[union-attr]
        for second in range(frames.seconds):
            for picture in frames.frames(second):
                if jpeg:
                    encode(picture)


def seconds_rendered(folder: Path) -> float:
    """Seconds of stream in a finished corpus."""
    told = json.loads((folder / "metrics.json").read_text())
    return float(told["corpus/hours"]) * 3600


def make_videos(folder: Path, count: int, seconds: int) -> list[Path]:
    """Videos, and a table with an event in each, `events.csv`, beside the folder."""
    folder.mkdir()
    rows = ["video,start,end,text,instruction"]
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        make_clip(path, 640, 480, seconds, number)
        at = 1 + (7 * number) % (seconds - 2)
        rows.append(f"{path.name},{at},,Number {number} is there.,Tell me when {number} is there.")
    folder.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    return paths


def decode_raw(paths: Sequence[Path]) -> None:
    for path in paths:
        raw_decord(path, 1)


def decode_pyav(paths: Sequence[Path]) -> None:
    """Every frame decoded, one a second made a picture."""
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            due = 1.0
            for frame in container.decode(stream):
                if frame.time is not None and frame.time + 1.5 / 30 > due:
                    frame.to_image()
                    due += 1


def decode_once(paths: Sequence[Path], scratch: Path) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        for path in paths:
            open_video(path, 1, cache_dir=cache, size=LONGEST_SIDE)


def video_options(folder: Path) -> list[str]:
    table = folder.with_suffix(".csv")
    named = [f"source.videos={folder}", f"source.annotations={table}"]
    return ["source=events", *named, "corpus.tools=[]"]


class Fresh:
    """Runs of the recipe, each in a folder of its own."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.last, self._count = scratch, scratch, 0

    def __call__(self, options: Sequence[str], cache: bool = False) -> Took:
        self._count += 1
        self.last = self.scratch / f"run{self._count}"
        own = [f"data.cache_dir={self.last}.cache"] if cache else []
        return measured(partial(corpus, self.last, *options, *own))


# The tables

HEAD = (
    "way",
    "seconds",
    "seconds of stream a second",
    "processor seconds",
    "of raw",
    "of raw, CPU",
)


def speed(ways: dict[str, Took], stream: float) -> list[str]:
    """A row a way: the first one is raw; the corpus also by its phases alone."""
    raw = next(iter(ways.values()))
    rows = [line(HEAD), "|---" * len(HEAD) + "|"]
    for name, took in ways.items():
        spans = [(name, took.seconds, took.worked)]
        if took.phases:
            spans.insert(0, (f"{name}, its phases", *took.making))
        for label, seconds, worked in spans:
            cells = [label, f"{seconds:.2f}", f"{stream / seconds:.0f}", f"{worked:.2f}"]
            rows.append(
                line([*cells, f"{raw.seconds / seconds:.0%}", f"{raw.worked / worked:.0%}"])
            )
    phases = [took.phases for took in ways.values() if took.phases][-1]
    told = ", ".join(f"{name} {phases[name][0]:.2f} s" for name in PHASES)
    return [*rows, "", f"Phases: {told}."]


def line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def rendered(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    fresh, count = Fresh(scratch), arguments.streams
    found = best(
        {
            "raw: scripts and pictures": lambda: measured(partial(render, count, False)),
            "and as JPEG": lambda: measured(partial(render, count, True)),
            "corpus": lambda: fresh(world_options(count, arguments.per_part)),
        },
        arguments.rounds,
    )
    return [f"## Rendered: {count} streams", "", *speed(found, seconds_rendered(fresh.last))]


def converted(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    paths = make_videos(scratch / "videos", arguments.videos, arguments.seconds)
    fresh = Fresh(scratch)
    options = video_options(scratch / "videos")
    found = best(
        {
            "raw: decord": lambda: measured(partial(decode_raw, paths)),
            "raw: PyAV": lambda: measured(partial(decode_pyav, paths)),
            "decoded once into the cache": lambda: measured(partial(decode_once, paths, scratch)),
            "corpus": lambda: fresh(options, cache=True),
        },
        arguments.rounds,
    )
    head = f"## Converted: {len(paths)} videos of {arguments.seconds} s, 640x480"
    stream = float(len(paths) * arguments.seconds)
    cache = size(Path(f"{fresh.last}.cache")) / stream * 3600 / 1e6
    shards = size(fresh.last / "corpus") / stream * 3600 / 1e6
    disk = f"An hour of video takes {cache:.0f} MB of cache, {shards:.0f} MB of shards."
    return [head, "", *speed(found, stream), disk]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def workers(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    """Parts of the work and of the writing, side by side."""
    fresh, count = Fresh(scratch), arguments.streams
    found = best(
        {
            name: partial(fresh, world_options(count, arguments.per_part, number))
            for name, number in (("1", 1), ("2", 2))
        },
        arguments.rounds,
    )
    rows = [line(("workers", "work, s", "write, s", "both, s", "against one")), "|---" * 5 + "|"]
    both = {name: took.phases["work"][0] + took.phases["write"][0] for name, took in found.items()}
    for name, took in found.items():
        seconds = [took.phases["work"][0], took.phases["write"][0], both[name]]
        cells = [name, *(f"{each:.2f}" for each in seconds), f"{both['1'] / both[name]:.2f}x"]
        rows.append(line(cells))
    note = "Times hold the start of the workers, which does not grow with the corpus."
    return [f"## Workers: {count} streams", "", *rows, "", note]


def memory(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    fresh = Fresh(scratch)
    head = ("streams", "own memory, MiB", "with mapped files, MiB", "of rendering alone, own, MiB")
    rows = [line(head), "|---" * len(head) + "|"]
    for count in arguments.memory:
        took = fresh([*world_options(count, arguments.per_part), "corpus.shown=0"])
        alone = measured(partial(render, count, True))
        rows.append(line((count, *(f"{each:.0f}" for each in (took.held, took.whole, alone.held)))))
        print(f"  {count}: {took.held:.0f} MiB")
    note = (
        f"One worker in the recipe's own process, {arguments.per_part} clips a part; rendering "
        "keeps what it has drawn, up to a bound."
    )
    return ["## Memory", "", *rows, "", note]


def reruns(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    count = arguments.asked
    with asked() as (url, calls):
        options = world_options(count, arguments.per_part)
        options += [f"agents.url={url}", "agents.model=yes", f"agents.cache={scratch / 'answers'}"]
        rows = [line(("run", "seconds", "of the first", "calls")), "|---" * 4 + "|"]
        first = 0.0
        runs = (("first", "one"), ("the same again", "one"), ("elsewhere, answers kept", "two"))
        for name, place in runs:
            before = len(calls)
            took = measured(partial(corpus, scratch / place, *options))
            first = first or took.seconds
            share = f"{took.seconds / first:.2%}"
            rows.append(line((name, f"{took.seconds:.2f}", share, len(calls) - before)))
            print(f"  {name}: {took.seconds:.1f} s")
    note = "Seconds are of the whole command, its start included."
    return [f"## Reruns: {count} streams, verified by an endpoint", "", *rows, "", note]


@contextmanager
def asked() -> Iterator[tuple[str, list[int]]]:
    """An OpenAI-compatible endpoint that says yes to all; a list that grows with each call."""
    calls: list[int] = []

    class Yes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(1)
            message = {"role": "assistant", "content": YES}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            told: dict[str, Any] = {"id": "yes", "object": "chat.completion", "created": 0}
            body = json.dumps({**told, "model": "yes", "choices": [choice], "usage": usage})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Yes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", calls
    finally:
        server.shutdown()
        server.server_close()


SECTIONS = {
    "rendered": rendered,
    "converted": converted,
    "workers": workers,
    "memory": memory,
    "reruns": reruns,
}


def sizes(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def processor() -> str:
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            return row.partition(":")[2].strip()
    return platform.machine()


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=4000, help="of the rendered world")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=120, help="length of each video")
    parser.add_argument("--per-part", type=int, default=100)
    parser.add_argument("--memory", type=sizes, default=[1000, 2000, 4000], metavar="N,N,N")
    parser.add_argument("--asked", type=int, default=300, help="streams that agents verify")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--folder", type=Path, help="where scratch files go")
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    return parser.parse_args()


def run() -> None:
    arguments = arguments_of()
    load = os.getloadavg()[0]
    text = ["# A corpus against raw rendering and decoding", ""]
    told = (
        f"`python benchmarks/corpus.py --streams {arguments.streams} --videos {arguments.videos} "
        f"--seconds {arguments.seconds} --per-part {arguments.per_part} "
        f"--rounds {arguments.rounds}`, {datetime.date.today()}."
    )
    versions = (
        f"Python {platform.python_version()}, PyAV {av.__version__}, decord {decord.__version__}, "
        f"Pillow {PIL.__version__}, numpy {np.__version__}, pyarrow {pyarrow.__version__}."
    )
    device = f"{os.cpu_count()} cores ({processor()}), load {load:.1f} when it began."
    text += [f"{told} {device} {versions}", ""]
    for name in arguments.only:
        print(name, flush=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"corpus-{name}-", dir=arguments.folder))
        try:
            rows = SECTIONS[name](arguments, scratch)
        finally:
            shutil.rmtree(scratch)
        print("\n".join(["", *rows, ""]), flush=True)
        text += [*rows, ""]
    text += [
        "Seconds are by the clock. Raw does nothing with its pictures; a corpus also reads and",
        "checks its source, compares clips, encodes, writes and hashes. Its phases are what grows",
        "with the corpus: the start of the command and the report's page are left out.",
        "",
    ]
    if arguments.results:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        write_text(RESULTS, "\n".join(text))
        print(f"written to {RESULTS}")


if __name__ == "__main__":
    run()
