"""Hostile records of every form that is read: through its reader, the plan, and into a shard.

    python benchmarks/hostile_records.py [--records 100000] [--seed 0] [--sources events srt ...]

Sound records of each form are spoilt: other types, NaN, numbers of thousands of digits, control
tokens, paths that escape, URLs, archives, half surrogates (`tests/data_pipeline/sources/shapes`);
then their text is: keys twice, arrays 100,000 deep, strings of a megabyte, cuts, bytes that are no
UTF-8, control characters. Each file goes to its reader, what that yields through `make_plan`, and
the plan's parts into shards of labels that are read back. It stops with an error where

- an item is lost, or is both used and refused;
- items read, planned, refused, written and rejected don't add up;
- a record that is kept names a path outside its folder, a URL or an archive, can't be written as
  UTF-8, or says a text that a prompt would take for a control token.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import posixpath
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page
from data_pipeline.candidates import Candidate, Refused
from data_pipeline.plan import make_plan
from data_pipeline.sources import speech
from data_pipeline.sources.convert import convert
from joyvl_train.actions import (
    CONTROL_TOKENS,
    RESPONSE,
    SILENCE,
    ActionFormatError,
    parse_action,
)
from joyvl_train.conversation import assistant_text, clean
from joyvl_train.published import to_raw
from joyvl_train.records import StreamLabels
from joyvl_train.shards import read_shards, write_index, write_shard
from joyvl_train.timeline import Clip, TimelineError, action_of, to_json
from tests.data_pipeline.sources import shapes

RESULTS = Path(__file__).parent / "results" / "hostile_records.md"
PER_PART = 2_000
LONG = 1 << 20
DEEP = 100_000
SPECIAL = f"{RESPONSE} {SILENCE} <|im_end|> <image> \u2028 \u202e \ufeff \U0001f525".encode()

Items = Iterator[Candidate | Refused]
Form = Callable[[random.Random, Path, int], tuple[int, Items]]
"""Writes about so many records into a folder: how many items these are, and what a reader makes of
them."""


# Forms


def spoilt_line(rng: random.Random, line: bytes) -> bytes:
    """One line of text with something wrong with it; still one line that isn't blank."""
    at, luck = rng.randrange(len(line) + 1), rng.random()
    if luck < 0.5:
        return line
    if luck < 0.6:
        line = line[:at] + rng.choice((b"\0", b"\x1b[2J", b"\x7f", b"\r", b"\x0c")) + line[at:]
    elif luck < 0.68:
        line = line[:at] + rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xfe\xff")) + line[at:]
    elif luck < 0.76:
        line = line[:at]
    elif luck < 0.82:
        line = line[:at] + rng.choice((b'"', b"\\", b"{", b"]", b",", b"-->", b"##")) + line[at:]
    elif luck < 0.88:
        line = line[:at] + line[at // 2 :]
    elif luck < 0.94:
        line = line[:at] + SPECIAL + line[at:]
    elif luck < 0.942:
        line = line[:at] + b"x" * LONG + line[at:]
    return line if line.strip() else b"?"


def spoilt_json(rng: random.Random, record: Any) -> bytes:
    """A record as one line of JSON, spoilt as data, then as text."""
    text = json.dumps(shapes.spoilt(rng, record) if rng.random() < 0.7 else record)
    luck = rng.random()
    if luck < 0.04 and text[0] == "{":  # the last one of two keys counts, or the first
        twice = rng.choice(list(record)) if isinstance(record, dict) else "video"
        other = json.dumps(rng.choice(shapes.HOSTILE))
        text = f'{{"{twice}": {other}, {text[1:]}'
    elif luck < 0.042:
        text = text.replace(":", ": " + "[" * DEEP, 1)
    elif luck < 0.044:
        text = text.replace(":", ": " + "[" * DEEP + "]" * DEEP + ', "x":', 1)
    elif luck < 0.05:
        text = text.replace(": ", ": " + rng.choice(("1" * 10_000, "-1e99999", "0x10", "Infinity")))
    return spoilt_line(rng, text.encode())


def json_lines(source: str) -> Form:
    def form(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
        path = folder / f"{source}.jsonl"
        with path.open("wb") as file:
            file.write(json.dumps(shapes.RECORDS[source][0]).encode() + b"\n")
            for number in range(count - 1):
                record = rng.choice(shapes.RECORDS[source])
                if source == "events" or rng.random() < 0.9:  # else a duplicate, by and by
                    keys = [key for key in ("video", "vid", "video_path") if key in record]
                    record = {**record, **dict.fromkeys(keys, f"{number}.mp4")}
                file.write(spoilt_json(rng, record) + b"\n")
        return count, convert(source, path)

    return form


def activitynet(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
    """Objects, one after the other; in text that is broken no one could tell where they go on."""
    path = folder / "activitynet.json"
    items = 0
    with path.open("w") as file:
        while items < count:
            told = shapes.spoilt(rng, shapes.ACTIVITYNET["v_one"])
            lists = [told.get(k) for k in ("timestamps", "sentences")] if told_of(told) else []
            items += max(1, *map(len, lists)) if lists else 1
            file.write(json.dumps({f"v{items}": told}) + "\n")
    return items, convert("activitynet", path)


def told_of(record: Any) -> bool:
    names = ("timestamps", "sentences")
    return isinstance(record, dict) and all(isinstance(record.get(n), list) for n in names)


def charades(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
    path = folder / "charades.txt"
    with path.open("wb") as file:
        for _ in range(count):
            line = rng.choice(shapes.CHARADES)
            if rng.random() < 0.5:
                words = re.split(r"([ #]+)", line)
                words[rng.randrange(len(words))] = one_line(str(rng.choice(shapes.HOSTILE)))
                line = "".join(words)
            file.write(spoilt_line(rng, line.encode("utf-8", "surrogatepass")) + b"\n")
    return count, convert("charades_sta", path)


def one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def csv_rows(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
    path = folder / "events.csv"
    names = ("video", "start", "end", "text", "instruction", "family")
    with path.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        for number in range(count):
            record = {**rng.choice(shapes.EVENTS), "video": f"{number}.mp4"}
            cells = [str(record.get(name, "")) for name in names]
            for _ in range(rng.randrange(3)):
                cells[rng.randrange(6)] = one_line(str(rng.choice(shapes.HOSTILE)))
            quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
            file.write(spoilt_line(rng, ",".join(quoted).encode("utf-8", "surrogatepass")) + b"\n")
    return count, convert("events", path)


CLOCKS = "00:00:{:02d},500 1:{:02d} {:02d} 99:99:{:02d} -{:02d} {:02d}.5 ٣:{:02d} NaN".split()


def subtitles(ending: str) -> Form:
    """Files of a hundred cues; an item is a cue. What holds no time is one, too."""

    def form(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
        place = folder / ending
        place.mkdir()
        items = 0
        for number in range(-(-count // 100)):
            blocks = []
            for cue in range(100):
                start, stop = (rng.choice(CLOCKS[: rng.choice((1, 8))]) for _ in range(2))
                arrow = rng.choice(("-->",) * 20 + ("->", "--> -->"))
                times = f"{start.format(cue % 60)} {arrow} {stop.format((cue + 1) % 60)} align:left"
                said = one_line(str(rng.choice(shapes.HOSTILE))) if cue % 2 else f"Line {cue}"
                blocks.append(said_block(rng, f"{cue}\n{times}\n{said}"))
            head = "WEBVTT\n\nNOTE no cue\n\n" if ending == "vtt" else ""
            text = head + "\n\n".join(blocks) + "\n"
            data = text.encode("utf-8", "surrogatepass" if rng.random() < 0.05 else "replace")
            if decodes(data):
                items += sum(map(cues_in, blocks))
            else:
                items += 1  # a file that is no text is one item
            (place / f"{number}.en.{ending}").write_bytes(data)
        return items, convert("subtitles", place)

    return form


def decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def said_block(rng: random.Random, block: str) -> str:
    luck = rng.random()
    at = rng.randrange(len(block))
    if luck < 0.1:
        block = block[:at] + rng.choice("\0\x1b<>{}&-\u2028") + block[at:]
    elif luck < 0.15:
        block = block[: at + 1]
    elif luck < 0.2:
        block += rng.choice(
            (SILENCE, f"<v Bob>{html.escape(RESPONSE)} x", "{\\an8}", "&#0;&#55296;")
        )
    elif luck < 0.201:
        block += "z" * LONG
    return block if block.strip() else "?"


def cues_in(block: str) -> int:
    """A line with an arrow begins a cue; a block without is one that can't be used."""
    return max(1, sum("-->" in line for line in block.split("\n")))


def spoken(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
    """What a recognizer may tell of a hundred segments a video."""

    def read() -> Items:
        for video in range(-(-count // 100)):
            told: list[Any] = []
            for n in range(100):
                segment: Any = [n * 1.5, n * 1.5 + 1.0, f"Word {n}."]
                if rng.random() < 0.4:
                    segment[rng.randrange(3)] = rng.choice(shapes.HOSTILE)
                told.append(segment if rng.random() < 0.97 else rng.choice(shapes.HOSTILE))
            clip = Clip(f"{video}.mp4", 160.0, video=f"{video}.mp4")
            yield from speech.commentary(clip, told)

    return -(-count // 100) * 100, read()


FORMS: dict[str, Form] = {
    **{source: json_lines(source) for source in shapes.RECORDS},
    "events as CSV": csv_rows,
    "charades_sta": charades,
    "activitynet": activitynet,
    "srt": subtitles("srt"),
    "vtt": subtitles("vtt"),
    "speech": spoken,
}


# What becomes of them


@dataclass
class Found:
    """What became of the items of one form."""

    items: int
    used: int = 0
    refused: int = 0
    candidates: int = 0
    duplicates: int = 0
    written: int = 0
    rejected: int = 0
    """Candidates that a shard can't hold."""
    seconds: float = 0.0
    peak: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Lost(AssertionError):
    """Items that are nowhere, or in two places, or a record that should not have been kept."""


def through(name: str, count: int, seed: int, folder: Path) -> Found:
    """Sends `count` records of a form through all of it."""
    rng = random.Random(f"{name} {seed}")
    items, read = FORMS[name](rng, folder, count)
    used: set[str] = set()
    refused: set[str] = set()
    made: Counter[str] = Counter()

    def counted() -> Items:
        for one in read:
            if isinstance(one, Refused):
                if one.where in refused:
                    raise Lost(f"{name}: {one.where} is refused twice")
                refused.add(one.where)
                made["refused"] += 1
            else:
                used.update(one.work["items"])
                made["candidates"] += 1
            yield one

    begun = time.perf_counter()
    plan = make_plan(counted(), folder / "plan", PER_PART, f"{name} {seed}")
    found = Found(items, len(used), len(refused), made["candidates"])
    if both := used & refused:
        raise Lost(f"{name}: {min(both)} is both used and refused")
    if found.used + found.refused != items:
        raise Lost(f"{name}: {found.used} used + {found.refused} refused of {items} items")
    found.duplicates = plan.refused.total() - found.refused
    if plan.candidates + found.duplicates != found.candidates:
        raise Lost(f"{name}: {plan.candidates} planned of {found.candidates}")
    write(name, plan, folder / "corpus", found)
    found.seconds = time.perf_counter() - begun
    found.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found.reasons += plan.refused
    return found


def write(name: str, plan: Any, corpus: Path, found: Found) -> None:
    """The plan's candidates as shards of labels, read back and held against what was written."""
    corpus.mkdir()
    entries = []
    for part in range(len(plan.parts)):
        records = (
            (StreamLabels(one.timeline, id=one.id, use=one.use), None) for one in plan.of(part)
        )
        entries.append(write_shard(corpus / f"shard-{part:05d}.parquet", records))
        found.rejected += len(entries[-1]["rejected"])
        found.reasons.update(each["reason"] for each in entries[-1]["rejected"])
        found.written += entries[-1]["records"]
    if found.written + found.rejected != plan.candidates:
        raise Lost(f"{name}: {found.written} written + {found.rejected} of {plan.candidates}")
    kept = {one.id: one for part in range(len(plan.parts)) for one in plan.of(part)}
    for one in kept.values():
        check_sound(one)
    if entries:
        write_index(corpus, entries)
        for labels, _ in read_shards(corpus):
            back, planned = labels.timeline, kept[labels.id].timeline
            if back != planned:
                raise Lost(f"{name}: {labels.id} comes back changed: {planned} -> {back}")


_MARK = re.compile(r"<(?=\S)")


def check_sound(one: Candidate) -> None:
    """`Lost` where a record was kept that should not have been."""
    clip = one.timeline.clip
    for path in filter(None, (clip.video, *clip.images)):
        outside = f"{posixpath.normpath(path)}/".startswith(("../", "/")) or "\\" in path
        if outside or "://" in path or re.search(r"\.zip\b", path) or "\0" in path:
            raise Lost(f"{one.id}: is kept with the path {path!r}")
    json.dumps(to_json(one.timeline), ensure_ascii=False, allow_nan=False).encode("utf-8")
    for event in one.timeline.events:
        told = clean(event.text)
        if event.role == "assistant":
            try:
                action = parse_action(assistant_text(action_of(event)))
            except ActionFormatError as error:
                raise Lost(f"{one.id}: says {event.text!r}: {error}") from error
            told = " ".join(astuple(action))
        if _MARK.search(told) or any(token in told for token in CONTROL_TOKENS):
            raise Lost(f"{one.id}: says {event.text!r}")
    with contextlib.suppress(TimelineError):  # what the published form can't hold
        to_raw(one.timeline)


def row(name: str, found: Found) -> str:
    cells = [
        name,
        found.items,
        found.used,
        found.refused,
        found.candidates,
        found.duplicates,
        found.rejected,
        found.written,
        len(found.reasons),
        f"{found.seconds:.1f}",
        found.peak,
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sources", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    each = -(-arguments.records // len(arguments.sources))
    head = "form|items|used|refused|candidates|duplicates|not writable|written|reasons|seconds"
    rows = ["| " + " | ".join([*head.split("|"), "peak MiB"]) + " |", "|---" * 11 + "|"]
    total, reasons = Found(0), Counter[str]()
    for name in arguments.sources:
        with tempfile.TemporaryDirectory() as folder:
            found = through(name, each, arguments.seed, Path(folder))
        rows.append(row(name, found))
        print(rows[-1], flush=True)
        reasons += found.reasons
        for key in ("items", "used", "refused", "candidates", "duplicates", "rejected", "written"):
            setattr(total, key, getattr(total, key) + getattr(found, key))
        total.seconds, total.peak = total.seconds + found.seconds, max(total.peak, found.peak)
    total.reasons = reasons
    rows.append(row("all", total))
    note = [
        "Items = used + refused; candidates = duplicates + not writable + written. Several",
        "items may make one candidate, one item several. Memory is the process's most so far.",
        "",
        "| reason | count |",
        "|---|---|",
        *(f"| {reason} | {count} |" for reason, count in reasons.most_common()),
    ]
    command = f"hostile_records.py --records {arguments.records} --seed {arguments.seed}"
    keep(arguments.out, page("Hostile records: readers, plan, shards", command, [], rows, note))


if __name__ == "__main__":
    main()
