"""A made-up corpus, small pictures and all, to run the pipeline's bookkeeping on.

Its videos have names alone: "videos/7.mp4" shows texture number 7, moving; "copies/7.mp4" shows the
same a little brighter and with noise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.candidates import Candidate, Refused, Use, candidate_to_json, each_open, id_of
from data_pipeline.lines import LinesWriter
from data_pipeline.work import Workshop
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError

SECONDS = 20
WORDS = [a + b for a in "ba be bi bo bu da de di do du".split() for b in "l m n r s t".split()]
FAMILIES = ("alerting", "qa", "counting")
LANGUAGES = ("en", "en", "de", "zh")


def candidate(
    *made_from: object,
    video: str = "videos/0.mp4",
    time: float = 5.0,
    question: str = "Is it there?",
    answer: str = "It is there now",
    family: str = "alerting",
    language: str = "en",
    use: Use = "train",
    until: float | None = None,
    seconds: float = SECONDS,
) -> Candidate:
    """A question at once and an answer at `time`."""
    events = (
        Event("q", 0.0, "user", question),
        Event("a", time, "assistant", answer, answers="q", until=until, repeat=until is not None),
    )
    clip = Clip(video, seconds, video=video)
    timeline = Timeline(clip, family, "made", events)
    return Candidate(id_of("made", *made_from), timeline, use, "CC0", language)


def source(count: int, seed: int = 0) -> Iterator[Candidate | Refused]:
    """Candidates, four to a video; of a hundred items two are refused, two repeat an earlier one,
    two say near the same as one, two the same of a copied video."""
    rng = random.Random(seed)
    last = candidate(seed, "first", video="videos/0.mp4")
    for number in range(count):
        luck = rng.random()
        if luck < 0.02:
            yield Refused(f"item {number}", "past the end", "at 99.0 s of 20 s")
        elif luck < 0.04:
            yield last
        elif luck < 0.06:
            yield _like(last, number, last.timeline.clip.video or "", "!")
        elif luck < 0.08:
            yield _like(last, number, (last.timeline.clip.video or "").replace("videos", "copies"))
        else:
            until = rng.choice((None, None, 15.0))
            last = candidate(
                seed,
                number,
                video=f"videos/{number // 4}.mp4",
                time=rng.randrange(2 * SECONDS - 10) / 2,
                question=" ".join(rng.choices(WORDS, k=8)),
                answer=" ".join(rng.choices(WORDS, k=rng.randint(1, 8))),
                family=rng.choice(FAMILIES),
                language=rng.choice(LANGUAGES),
            )
            if until is not None and last.timeline.events[1].time < until:
                answer = last.timeline.events[1]
                last = candidate(
                    seed,
                    number,
                    video=last.timeline.clip.video or "",
                    time=answer.time,
                    question=last.timeline.events[0].text,
                    answer=answer.text,
                    family=last.timeline.family,
                    language=last.language,
                    until=until,
                )
            yield last


def _like(other: Candidate, number: int, video: str, more: str = "") -> Candidate:
    question, answer = other.timeline.events
    return candidate(
        "like",
        number,
        video=video,
        time=answer.time,
        question=question.text + more,
        answer=answer.text + more,
        family=other.timeline.family,
        language=other.language,
        until=answer.until,
    )


class Texture:
    """Smooth random pictures, a new one blended in every second."""

    def __init__(self, video: str, seconds: int = SECONDS) -> None:
        self.seconds = seconds
        folder, _, name = video.partition("/")
        self._seed = int(name.removesuffix(".mp4"))
        self._copy = folder == "copies"

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        still = np.random.default_rng([self._seed, 99]).integers(0, 200, (6, 6, 3))
        moving = np.random.default_rng([self._seed, second]).integers(0, 200, (6, 6, 3))
        coarse = ((still + moving) / 2).astype(np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((48, 32)), np.float64)
        if self._copy:
            noise = np.random.default_rng(second).normal(0, 4, picture.shape)
            picture = np.clip(picture * 1.1 + noise, 0, 255)
        return (Image.fromarray(picture.astype(np.uint8)),)


def frames(timeline: Timeline) -> Texture:
    if timeline.clip.video is None or "/" not in timeline.clip.video:
        raise TimelineError("unreadable file", f"{timeline.clip.video!r}")
    return Texture(timeline.clip.video)


def judge(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """By the id: some are rejected, some unverified, some changed."""
    for each in candidates:
        digit = int(each.id[:2], 16) % 16
        if each.status != "open":
            yield each
        elif digit == 0:
            yield each.rejected("judge", "not seen", f"digit {digit}", "judge@1f0c33a9")
        elif digit == 1:
            yield each.unverified("judge", "no answer", agent="judge@1f0c33a9")
        elif digit == 2:
            yield each.changed("judge", language="fr", agent="judge@1f0c33a9")
        else:
            yield each.kept("judge", agent="judge@1f0c33a9")


def workshop() -> Workshop:
    return Workshop((judge,), frames)


@dataclass
class SlowShop:
    """A workshop that takes a while over each candidate."""

    seconds: float

    def __call__(self) -> Workshop:
        def wait(candidate: Candidate) -> Candidate:
            time.sleep(self.seconds)
            return candidate

        return Workshop((judge, lambda flow: each_open("wait", wait, flow)), frames)


@dataclass
class PlainShards:
    """Shards as JSON lines; of the candidates one in thirty can't be written."""

    folder: Path
    wait: float = field(default=0.0, compare=False)

    def path(self, part: int) -> Path:
        return self.folder / f"shard-{part:05d}.jsonl"

    def done(self, part: int) -> bool:
        return self.path(part).exists()

    def __call__(self, part: int, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with LinesWriter(self.path(part)) as lines:
            for each in candidates:
                time.sleep(self.wait)
                if int(each.id[-2:], 16) % 30 == 0:
                    yield each.rejected("write", "past the end", "of its pictures")
                else:
                    lines.add(candidate_to_json(each))
                    yield each


def files(folder: Path, *apart: str) -> dict[str, bytes]:
    """The content of every file under `folder`, those in folders named `apart` left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not set(name.parts) & set(apart):
            found[str(name)] = path.read_bytes()
    return found
