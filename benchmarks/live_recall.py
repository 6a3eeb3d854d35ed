"""What a stream of hours still knows: each tier of the memory, taken away in turn.

    python benchmarks/live_recall.py RUN [NAME=RUN ...] [--streams 8] [--every 150] [--results]

In streams of 2.7 hours a coloured thing comes and goes now and then, and nobody says a word. At
the end the user asks about things that came once, minutes or hours ago: what colour, when, and what
came just before. Every run tells what it sees of each chunk (`serve.memory.Seen` asks the same);
from these same texts the memory is then built by each way of keeping them, and the question is put
to a session that opens with it. `told exactly` has the world's own log in place of what was seen.
The last way also searches what the memory has let go (`serve.memory.Searched`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import chosen_bias, finish, named_runs, page, row, versions
from benchmarks.served_live import SIDE
from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.stories.recall import ASK_MEMORY
from data_pipeline.world.streams import frame_times
from data_pipeline.world.words import a, capital, forms
from eval.fields import Fields
from eval.script import read_script
from joyvl_train.actions import Action, Response, Silence
from joyvl_train.cli import compose
from joyvl_train.content import right
from joyvl_train.engine import Engine
from joyvl_train.memory import Limits, Memory, Summary, add_summary, log_summary, memory_text
from joyvl_train.stream import Stream, StreamSettings, Turn
from joyvl_train.timeline import Rule
from joyvl_train.trainer import generating
from recipes._speaking import engine_of, speaker
from serve.consolidation import ModelSummary
from serve.memory import Said, Searched

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "live_recall.md"
CHUNKS = 97
STAY = 12
"""Seconds that a thing is there."""
PIECE = 1000
"""Seconds that are drawn from one script."""
MINUTES = (3, 6, 11, 21, 41, 81, 121, 151)
LIMITS = Limits()
SEARCHED = "three tiers, and a search"
WAYS: dict[str, Limits] = {
    "three tiers": LIMITS,
    "no long-term blocks": replace(LIMITS, long=0),
    "the last chunk's summary alone": replace(LIMITS, mid=1, long=0),
    SEARCHED: LIMITS,
}
EXACT, NOTHING = "three tiers, told exactly", "nothing of earlier chunks"


@dataclass(frozen=True)
class Visit:
    """A thing that comes in `second` and is gone `STAY` seconds later."""

    second: int
    thing: Picture
    colour: str

    @property
    def noun(self) -> str:
        return f"{self.colour} {self.thing.name}"


@dataclass(frozen=True)
class Question:
    """asked: the words. What is right follows from `rule`."""

    minutes: int
    kind: str
    asked: str
    rule: Rule


class Hours:
    """A stream of hours, drawn by the piece; a thing comes every `every` seconds."""

    def __init__(self, number: int, settings: StreamSettings, every: int) -> None:
        rng = random.Random(f"hours/{number}")
        self.stop = CHUNKS * settings.chunk_seconds
        self.asked_at = self.stop + 3
        things = [p for p in picture_set("drawn") if p.colours and p.article in ("a", "an")]
        rng.shuffle(things)
        once = things[: len(MINUTES)]
        others = things[len(once) :]
        places: dict[int, tuple[int, Picture]] = {}
        for minutes, thing in zip(MINUTES, once, strict=True):
            places[(self.asked_at - 60 * minutes) // every] = minutes, thing
        self.visits: list[Visit] = []
        self.once: list[tuple[int, int]] = []
        for place in range((self.stop + 10) // every):
            minutes, thing = places.get(place, (0, None))
            if thing is not None:
                self.once.append((minutes, place))
            shown = thing or rng.choice(others)
            self.visits.append(Visit(place * every + 3, shown, rng.choice(list(COLOURS))))
        self._number = number
        self._scenes: dict[int, Any] = {}

    def picture(self, second: int) -> Image.Image:
        """What is there at the end of a second."""
        piece, within = divmod(second, PIECE)
        if piece not in self._scenes:
            self._scenes = {piece: self._scene(piece)}  # they are asked for in order
        scene = self._scenes[piece]
        (time,) = frame_times(1, scene.duration, within)
        return world_scene.draw(scene, time, SIDE, SIDE)

    def _scene(self, piece: int) -> Any:
        start = piece * PIECE
        stop = start + PIECE
        things = [
            {
                "thing": v.thing.name,
                "colour": v.colour,
                "from": max(v.second - start, 0),
                "to": min(v.second - start + STAY, PIECE),
                "place": ("top left", "bottom right")[v.second % 2],
            }
            for v in self.visits
            if v.second < stop and v.second + STAY > start
        ]
        told = {"seconds": PIECE, "things": things, "seed": self._number * 1000 + piece}
        return read_script(Fields(told, f"piece {piece}")).scene

    def turns(self, seconds: range) -> tuple[Turn, ...]:
        return tuple(Turn(s, (self.picture(s),), action=Silence()) for s in seconds)

    def log(self, seconds: range) -> str:
        """What came and left in these seconds, exactly."""
        lines = []
        for visit in self.visits:
            if visit.second in seconds:
                lines.append(
                    f"{visit.second} s: {capital(a(visit.noun, visit.thing.article))} appeared."
                )
            if visit.second + STAY in seconds:
                lines.append(f"{visit.second + STAY} s: The {visit.noun} left.")
        return "; ".join(lines) or log_summary(())

    def questions(self) -> Iterator[Question]:
        rng = random.Random(f"asked/{self._number}")
        for minutes, place in self.once:
            visit, before = self.visits[place], self.visits[place - 1]
            facts = {
                "old_colour": Rule("key_facts", (visit.colour,)),
                "when": Rule("number", (str(visit.second),)),
                "old_before": Rule("key_facts", ("|".join(before.thing.names),)),
            }
            words = forms(visit.thing.name, visit.thing.article)
            for kind, rule in facts.items():
                asked = rng.choice(ASK_MEMORY[kind]).format(**words)
                yield Question(minutes, kind, asked, rule)


class Told(Said):
    """A keeper of texts that are there already."""

    def __init__(self, texts: Sequence[str], settings: StreamSettings) -> None:
        super().__init__()
        self._texts = dict(zip(_covered(settings), texts, strict=True))

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        return self._texts[seconds]


def _covered(settings: StreamSettings) -> list[range]:
    """The seconds of each summary that a stream of `CHUNKS` asks for."""
    stops = [n * settings.chunk_seconds - settings.lead for n in range(1, CHUNKS + 1)]
    return [range(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def kept(texts: Sequence[str], settings: StreamSettings, limits: Limits) -> Memory:
    """The memory that a stream has after these texts of its chunks."""
    memory = Memory()
    for seconds, text in zip(_covered(settings), texts, strict=True):
        memory, _ = add_summary(memory, Summary(seconds.start, seconds.stop, text), limits)
    return memory


def searched(texts: Sequence[str], settings: StreamSettings) -> Searched:
    """What keeps all of these texts for a search."""
    keeper = Searched(Told(texts, settings))

    async def fill() -> None:
        for seconds in _covered(settings):
            await keeper.chunk(seconds, ())

    asyncio.run(fill())
    return keeper


def answers(
    engine: Engine, hours: Hours, memory: Memory, asked: Sequence[tuple[str, str]]
) -> list[str]:
    """What a stream that opens with `memory`, as a chunk does, says within two seconds to each of
    these questions; beside each the note that comes with it. None hears of another."""
    settings = StreamSettings()
    stream = Stream(settings, memory)
    handle = engine.open(stream)

    def step(own: Stream, at: int, second: int, *texts: Sequence[str]) -> Action:
        queries, notes = texts or ((), ())
        own.observe(second, (hours.picture(second),), queries, (), notes)
        (reply,) = engine.step([at])
        own.act(reply.action or Silence())
        return reply.action or Silence()

    for second in range(hours.stop - settings.lead, hours.asked_at):
        step(stream, handle, second)
    found = []
    for question, note in asked:
        own = stream.fork()
        fork = engine.fork(handle, own)
        said = [step(own, fork, hours.asked_at, [question], [note] if note else [])]
        said += [step(own, fork, hours.asked_at + later, [], []) for later in (1, 2)]
        found.append(next((each.text for each in said if isinstance(each, Response)), ""))
        engine.close(fork)
    engine.close(handle)
    return found


@dataclass
class Arm:
    """How many questions were asked and answered rightly, by age and by kind."""

    asked: Counter[Any]
    right: Counter[Any]
    tokens: list[int]


def measure(name: str, run: Path, streams: int, seed: int, every: int) -> dict[str, Arm]:
    """Every way of keeping, on the same texts of one run."""
    config = compose(ROOT, ["recipe=serve"])
    model, renderer = speaker(config, str(run / "checkpoint"))
    settings = StreamSettings()
    ways = [*WAYS, EXACT, NOTHING]
    arms = {way: Arm(Counter(), Counter(), []) for way in ways}
    with generating(model) as plain:
        engine = engine_of(plain, renderer, config, chosen_bias(run))
        asks = ModelSummary(engine)
        for number in range(seed, seed + streams):
            hours = Hours(number, settings, every)
            seen, exact = [], []
            for seconds in tqdm(_covered(settings), desc=f"{name}, stream {number}", unit="chunk"):
                seen.append(asks(hours.turns(seconds)))
                exact.append(hours.log(seconds))
            finder = searched(seen, settings)
            memories = {way: kept(seen, settings, limits) for way, limits in WAYS.items()}
            memories |= {EXACT: kept(exact, settings, LIMITS), NOTHING: Memory()}
            for way, memory in memories.items():
                arm = arms[way]
                arm.tokens.append(len(renderer.open(memory_text(memory)).ids))
                before = memory.long[0].start if memory.long else hours.stop
                questions = list(hours.questions())
                notes = [
                    finder.recall(q.asked, before) if way == SEARCHED else "" for q in questions
                ]
                told = [(q.asked, note) for q, note in zip(questions, notes, strict=True)]
                said = answers(engine, hours, memory, told)
                for question, text in zip(questions, said, strict=True):
                    good = right(question.rule, "", text) is True
                    for key in (question.minutes, question.kind):
                        arm.asked[key] += 1
                        arm.right[key] += good
    return arms


def shares(arms: dict[str, Arm], keys: Sequence[Any]) -> list[list[str]]:
    """A line an arm: its shares of right answers."""
    return [
        [way, *(f"{arm.right[key] / max(arm.asked[key], 1):.0%}" for key in keys)]
        for way, arm in arms.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="RUN or NAME=RUN, finished runs of recipe=sft")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--every", type=int, default=150, help="seconds between visits, 25 or more")
    parser.add_argument("--seed", type=int, default=0, help="number of the first stream")
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args(arguments)
    by_age = [row(["run", "memory", *(f"{m} min" for m in MINUTES), "tokens"])]
    kinds = ("old_colour", "when", "old_before")
    by_kind = [row(["run", "memory", "what colour", "when", "what came before"])]
    by_age.append(row(["---"] * (len(MINUTES) + 3)))
    by_kind.append(row(["---"] * 5))
    for name, run in named_runs(given.runs).items():
        arms = measure(name, run, given.streams, given.seed, given.every)
        for line, arm in zip(shares(arms, MINUTES), arms.values(), strict=True):
            by_age.append(row([name, *line, f"{np.mean(arm.tokens):,.0f}"]))
        by_kind += [row([name, *line]) for line in shares(arms, kinds)]
    asked = given.streams * 3
    note = [
        f"{given.streams} streams of {CHUNKS} chunks, with a thing every {given.every} "
        f"seconds; each share of the first table is of {asked} questions."
    ]
    packages = versions("torch", "transformers")
    command = f"live_recall.py RUN --streams {given.streams} --every {given.every}"
    text = page("What a stream of hours knows", command, packages, [*by_age, "", *by_kind], note)
    finish(RESULTS, text, given.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
