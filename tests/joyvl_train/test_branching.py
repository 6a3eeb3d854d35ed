"""Several draws of a stream's second say what as many streams of their own would say."""

from __future__ import annotations

import random
from typing import Any

import pytest

from joyvl_train.actions import Silence
from joyvl_train.branching import BranchingEngine
from joyvl_train.engine import Engine
from joyvl_train.stream import Stream, StreamSettings
from tests.joyvl_train.conftest import picture
from tests.rl.tiny_grpo import lively

pytestmark = pytest.mark.usefixtures("one_thread")
SECONDS, COUNT = 9, 6


@pytest.fixture(scope="module", name="model")
def _model() -> tuple[Any, Any]:
    return lively()


def scene(seed: int) -> list[tuple[Any, list[str]]]:
    rng = random.Random(seed)
    return [(picture(rng.randrange(99)), ["fire now"] * (t % 4 == 1)) for t in range(SECONDS)]


def alone(model: Any, seed: int, **settings: Any) -> list[list[tuple[int, ...]]]:
    """What `COUNT` streams of their own say, second by second."""
    engine = Engine(*model, max_new_tokens=5, temperature=1.0, details=True, **settings)
    streams = [Stream(StreamSettings(6, 2)) for _ in range(COUNT)]
    handles = [engine.open(stream, 100 + n) for n, stream in enumerate(streams)]
    said: list[list[tuple[int, ...]]] = [[] for _ in streams]
    for second, (frame, queries) in enumerate(scene(seed)):
        for stream in streams:
            stream.observe(second, (frame,), queries)
        for n, reply in enumerate(engine.step(handles)):
            said[n].append(reply.tokens)
            streams[n].act(reply.action or Silence())
    return said


def together(model: Any, seeds: list[int], **settings: Any) -> tuple[Any, list[int]]:
    """The same by branches, of several scenes at once, and how many rows there were."""
    engine = BranchingEngine(*model, max_new_tokens=5, temperature=1.0, details=True, **settings)
    going = []
    for place, _ in enumerate(seeds):
        handle = engine.open(Stream(StreamSettings(6, 2)), 0)
        going.append((place, handle, {n: engine.random(100 + n) for n in range(COUNT)}))
    said: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    rows = []
    scenes = [scene(seed) for seed in seeds]
    for second in range(SECONDS):
        for place, handle, _ in going:
            frame, queries = scenes[place][second]
            engine.stream(handle).observe(second, (frame,), queries)
        rows.append(len(going))
        found = engine.branch([h for _, h, _ in going], [list(r.values()) for *_, r in going])
        parted = []
        for (place, handle, randoms), branches in zip(going, found, strict=True):
            assert sorted(n for b in branches for n in b.members) == list(range(len(randoms)))
            assert handle in {branch.handle for branch in branches}
            numbers = list(randoms)
            for branch in branches:
                own = {numbers[n]: randoms[numbers[n]] for n in branch.members}
                for n in own:
                    said.setdefault((place, n), []).append(branch.reply.tokens)
                engine.stream(branch.handle).act(branch.reply.action or Silence())
                parted.append((place, branch.handle, own))
        going = parted
    for _, handle, _ in going:
        engine.close(handle)
    assert len(engine) == 0 and engine._store.layers == []
    return said, rows


@pytest.mark.parametrize("settings", [{}, {"silence_bias": 3.0}, {"batch_tokens": 64}])
def test_branches_say_what_streams_of_their_own_say(model: Any, settings: dict) -> None:
    seeds = [1, 2, 3]
    said, rows = together(model, seeds, **settings)
    for place, seed in enumerate(seeds):
        for n, wanted in enumerate(alone(model, seed, **settings)):
            assert said[place, n] == wanted
    assert rows[0] == len(seeds) and max(rows) <= len(seeds) * COUNT
    if "silence_bias" in settings:
        assert sum(rows) < len(seeds) * COUNT * SECONDS  # some were silent together


def test_without_increments_the_same(model: Any) -> None:
    said, _ = together(model, [4], incremental=False)
    assert [said[0, n] for n in range(COUNT)] == alone(model, 4)


def test_misuse_is_told(model: Any) -> None:
    engine = BranchingEngine(*model)
    handle = engine.open(Stream(), 0)
    engine.stream(handle).observe(0, (picture(1),))
    for randoms in ([], [[]]):
        with pytest.raises(ValueError, match="random numbers for"):
            engine.branch([handle], randoms)
