"""Agents that know: an OpenAI-compatible server on this machine that answers every prompt from the
log of the rendered world, and errs, lies, stumbles or hangs as often as it is told to.

    with Oracle() as oracle:
        oracle.knows(timeline, frames)
        desk = Desk(frames_of, oracle.agents())

It is asked over real HTTP by real agents; which prompt a question belongs to, which clip it shows
and what it asks are read off the request. It serves tests of the pipeline, and says nothing about
how well a model verifies.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from data_pipeline.agents.agent import Agent
from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.prompts import PROMPTS, load
from joyvl_train.frames import Frames
from joyvl_train.llm import image_part
from joyvl_train.timeline import Timeline
from tests.data_pipeline.agents.endpoint import Endpoint, client
from tests.data_pipeline.answers import ANSWERS, LIES, Ask
from tests.data_pipeline.truth import Truth

_TEXT = r'"(?:[^"\\]|\\.)*"'
_FIELD = rf"({_TEXT}|\d+|\(none\)|(?:\n- {_TEXT})+)"


@dataclass(frozen=True)
class _Form:
    """A prompt as it is recognized: by what it tells once, and by its question."""

    name: str
    pattern: re.Pattern[str]
    fields: tuple[str, ...]


def _form(name: str) -> _Form:
    question = load(name).question
    parts = re.split(r"\$\{?([a-z_]+)\}?", question)
    pattern = "".join(
        _FIELD if n % 2 else re.escape(part.replace("$$", "$")) for n, part in enumerate(parts)
    )
    return _Form(name, re.compile(pattern, re.DOTALL), tuple(parts[1::2]))


def _value(text: str) -> Any:
    if text.isdigit():
        return int(text)
    if text.startswith('"'):
        return json.loads(text)
    return [] if text == "(none)" else [json.loads(line[2:]) for line in text.strip().split("\n")]


class Oracle:
    """errs: the share of questions answered wrong, of all prompts or by name. faults: by name, or
    for all, (share, what comes instead): a text, a (status, body), bytes, or seconds to hang for
    (see `Endpoint`). answers: by name, what answers in place of the log. settings: of the client.

    Equal questions get equal answers, right or wrong.
    """

    def __init__(
        self,
        *,
        errs: float | Mapping[str, float] = 0.0,
        faults: Mapping[str, tuple[float, Any]] | None = None,
        answers: Mapping[str, Callable[[Ask], Any]] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.errs = errs if isinstance(errs, Mapping) else dict.fromkeys(PROMPTS, errs)
        self.faults = faults or {}
        self.answers = {**ANSWERS, **(answers or {})}
        self.seed, self.settings = seed, settings
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._forms = {load(name).system: _form(name) for name in PROMPTS}
        self._shown: dict[tuple[int, str], set[str]] = {}
        self._truths: dict[str, Truth] = {}
        self._gold: dict[str, list[Timeline]] = {}
        self._endpoint = Endpoint(self._answer)

    def knows(self, timeline: Timeline, frames: Frames) -> None:
        """Makes a clip known: its pictures, its scene, and what is right to say on it."""
        clip = timeline.clip.id
        self._gold.setdefault(clip, []).append(timeline)
        if clip in self._truths:
            return
        self._truths[clip] = Truth(timeline)
        for second in range(frames.seconds):
            url = image_part(frames.frames(second)[-1])["image_url"]["url"]
            self._shown.setdefault((second, _digest(url)), set()).add(clip)

    def truth(self, clip: str) -> Truth:
        return self._truths[clip]

    def agents(self, **settings: Any) -> dict[str, Agent]:
        """All agents there are, that ask this server. `settings` are those of `Agent`."""
        settings = {"most_failures": None, **settings}
        return {name: Agent(load(name), self._client, **settings) for name in PROMPTS}

    def __enter__(self) -> Self:
        self._endpoint.__enter__()
        self._client = client(self._endpoint, **self.settings)
        return self

    def __exit__(self, *error: object) -> None:
        wait_for(self._client.close())
        self._endpoint.__exit__(*error)

    def _answer(self, request: dict[str, Any], number: int) -> Any:
        ask = self._read(request)
        self.asked[ask.name] += 1
        key = [self.seed, ask.name, sorted(ask.fields.items()), ask.clip, ask.seconds]
        rng = random.Random(json.dumps(key))
        share, fault = self.faults.get(ask.name, self.faults.get("*", (0.0, None)))
        if rng.random() < share:
            return fault
        data = self.answers[ask.name](ask)
        if rng.random() < self.errs.get(ask.name, 0.0):
            self.wrong[ask.name] += 1
            data = LIES.get(ask.name, LIES["*"])(ask, data, rng)
        return json.dumps(data)

    def _read(self, request: dict[str, Any]) -> Ask:
        system, user = request["messages"][:2]
        form = self._forms[system["content"]]
        *shown, question = user["content"]
        match = form.pattern.fullmatch(question["text"])
        assert match, f"{form.name}: {question['text']!r} does not fit its prompt"
        fields = dict(zip(form.fields, map(_value, match.groups()), strict=True))
        second, seconds, clips = 0, [], None
        for part in shown:
            if part["type"] == "text":
                second = int(float(part["text"].strip("<>").split()[0]))
                continue
            seconds.append(second)
            known = self._shown.get((second, _digest(part["image_url"]["url"])), set())
            clips = known if clips is None else clips & known
        assert clips or not seconds, f"{form.name}: pictures of no clip that is known"
        clip = min(clips) if clips else ""
        truth = self._truths.get(clip)
        return Ask(form.name, fields, tuple(seconds), clip, truth, tuple(self._gold.get(clip, ())))


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
