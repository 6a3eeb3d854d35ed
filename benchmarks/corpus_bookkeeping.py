"""The bookkeeping of a corpus, from a source to shards, on clips of tiny frames and no agents.

    python benchmarks/corpus_bookkeeping.py [--count 50000] [--workers 1] [--per-part 2000]

Runs the phases of `recipe=corpus` on made-up candidates, four to a video, each phase in a process
of its own, then all of them again on what is there. `--count 4000000` is the full dry run.

plan     ids, duplicates by id and text, parts
work     one stage that looks at each, hashes of pictures (of 32x32, drawn), rows
settle   near-same clips and footage under several names, benchmarks' footage, balance
write    what stays into Parquet shards (ten frames of 32x32 as JPEG a clip), the rest into rejects,
         the index, the funnel

Of a hundred items two are refused by the source, two repeat an id, two say near the same as another
one, two are of a copied video.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also where it is spawned

from benchmarks.fresh_process import Took, measured
from benchmarks.result_page import keep, page
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate, Refused, each_open, id_of
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan, read_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import finish, writing
from joyvl_train.timeline import Clip, Event, Timeline

RESULTS = Path(__file__).parent / "results" / "corpus_bookkeeping.md"
SECONDS = 10
FULL = 4_000_000
WORDS = [a + b + c for a in "bdfgkl" for b in "aeiou" for c in ("m", "n", "rt", "sk", "st", "")]
FAMILIES = ("alerting", "qa", "counting", "commentary", "chat", "delegation")
TARGETS = Targets(families={"alerting": 0.2}, languages={"en": 0.6}, silence=0.95)


def source(count: int) -> Iterator[Candidate | Refused]:
    """Made-up candidates; the same ones every time."""
    rng = random.Random(0)
    last = _candidate(rng, 0, "first")
    for number in range(count):
        luck = rng.random()
        if luck < 0.02:
            yield Refused(f"item {number}", "past the end", f"at 99.0 s of {SECONDS} s")
        elif luck < 0.04:
            yield last
        elif luck < 0.08:
            yield _again(last, number, copied=luck >= 0.06)
        else:
            last = _candidate(rng, number // 4, number)
            yield last


def _candidate(rng: random.Random, video: int, *made_from: object) -> Candidate:
    at = rng.randrange(SECONDS - 4)
    events = (
        Event("q", 0.0, "user", " ".join(rng.choices(WORDS, k=12))),
        Event("a", float(at), "assistant", " ".join(rng.choices(WORDS, k=8)), answers="q"),
    )
    clip = Clip(f"clip {video}", float(SECONDS), video=f"videos/{video}.mp4")
    timeline = Timeline(clip, rng.choice(FAMILIES), "made", events)
    language = "en" if rng.random() < 0.8 else "zh"
    return Candidate(id_of("made", *made_from), timeline, "train", "CC0", language)


def _again(other: Candidate, number: int, *, copied: bool) -> Candidate:
    """The same annotation in a sign more; of a copy of its video."""
    timeline = other.timeline
    question, answer = timeline.events
    video = timeline.clip.video or ""
    clip = Clip(f"again {number}", float(SECONDS), video=video.replace("videos", "copies", copied))
    events = (Event("q", 0.0, "user", question.text + "!"), answer)
    return Candidate(
        id_of("again", number),
        Timeline(clip, timeline.family, "made", events),
        "train",
        "CC0",
        other.language,
    )


@dataclass
class Tiny:
    """Small pictures out of a video's number."""

    number: int
    seconds: int = SECONDS

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        coarse = np.random.default_rng([self.number, second]).integers(0, 255, (6, 6), np.uint8)
        return (Image.fromarray(coarse).resize((32, 32)),)


def frames(timeline: Timeline) -> Tiny:
    return Tiny(int((timeline.clip.video or "").partition("/")[2].removesuffix(".mp4")))


def look(candidate: Candidate) -> Candidate:
    """One in sixteen is rejected."""
    if candidate.id[0] == "0":
        return candidate.rejected("look", "not seen", "made up")
    return candidate.kept("look")


def workshop() -> Workshop:
    return Workshop((partial(each_open, "look", look),), frames)


def open_frames() -> Callable[[Timeline], Tiny]:
    return frames


@dataclass(frozen=True)
class Job:
    """One run of all phases."""

    folder: Path
    count: int
    per_part: int
    workers: int

    def read(self) -> None:
        """The source alone: what making it up takes of the plan's time."""
        for _ in source(self.count):
            pass

    def plan(self) -> None:
        make_plan(source(self.count), self.folder / "plan", self.per_part, f"made {self.count}")

    def work(self) -> None:
        work = self._work()
        run_parts(work.plan.sizes, work, Local(self.workers), work.folder)

    def settle(self) -> None:
        settle(self._work(), self.folder / "chosen", TARGETS)

    def write(self) -> None:
        done = settle(self._work(), self.folder / "chosen", TARGETS)
        places = self.folder / "corpus", self.folder / "rejects"
        admission = writing(done, *places, open_frames, "tiny")
        run_parts(done.work.plan.sizes, admission, Local(self.workers), admission.folder)
        finish(admission)
        admission.funnel()

    def _work(self) -> StageWork:
        plan = read_plan(self.folder / "plan")
        return StageWork(plan, self.folder / "work", workshop, "look 1")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


MADE = {
    "plan": ("plan",),
    "work": ("work",),
    "settle": ("chosen",),
    "write": ("corpus", "rejects"),
}


def table(job: Job) -> list[str]:
    """A row a phase."""
    head = ["phase", "seconds", "clips a second", "again, seconds", "bytes a clip"]
    head += ["own memory, MiB", "with mapped files", f"{FULL:,} clips: hours", "GB"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows.append(_row(job, "read", measured(job.read), None, 0))
    first = {name: measured(getattr(job, name)) for name in MADE}
    again = {name: measured(getattr(job, name)).seconds for name in MADE}
    made = {name: sum(size(job.folder / each) for each in MADE[name]) for name in MADE}
    for name, took in first.items():
        rows.append(_row(job, name, took, again[name], made[name]))
    seconds, back = sum(took.seconds for took in first.values()), sum(again.values())
    most = max(took.held for took in first.values()), max(took.whole for took in first.values())
    worked = sum(took.worked for took in first.values())
    rows.append(_row(job, "all", Took(seconds, worked, *most), back, sum(made.values())))
    return [*rows, "", f"Again: {back / seconds:.2%} of the first run."]


def _row(job: Job, name: str, took: Took, back: float | None, made: int) -> str:
    cells = [
        name,
        f"{took.seconds:.2f}",
        f"{job.count / took.seconds:.0f}",
        "" if back is None else f"{back:.3f}",
        f"{made / job.count:.0f}" if made else "",
        f"{took.held:.0f}",
        f"{took.whole:.0f}",
        f"{took.seconds / job.count * FULL / 3600:.2f}",
        f"{made / job.count * FULL / 1e9:.1f}" if made else "",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--per-part", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bookkeeping-"))
    job = Job(folder, arguments.count, arguments.per_part, arguments.workers)
    try:
        rows = table(job)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    note = [
        "`read` is the source alone, whose time is in `plan` too. Again: a second run on what",
        "the first one left. Memory is of the process that runs the phase; pages of mapped",
        "files are the system's, which takes them back at need. The last two columns are",
        "computed from the same run, in proportion.",
    ]
    command = f"corpus_bookkeeping.py --count {job.count} --per-part {job.per_part}"
    command += f" --workers {job.workers}"
    title = "Bookkeeping of a corpus: a dry run with tiny frames"
    keep(arguments.out, page(title, command, [f"numpy {np.__version__}"], rows, note))


if __name__ == "__main__":
    main()
