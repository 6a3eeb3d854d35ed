"""What comes after second t moves nothing at or before it: data, trainer's states, engine."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from data_pipeline.world.scene import Scene, from_json, to_json
from data_pipeline.world.streams import FAMILIES, WorldFrames, stream
from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
from joyvl_train.chunks import training_chunks
from joyvl_train.collate import collate
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream, Turn
from joyvl_train.trainer import WeightedLoss, generating
from joyvl_train.weights import LossWeights, token_weights

SIDE = 64
CUT = 6


@pytest.fixture(scope="module")
def tiny():
    tokenizer = train_tokenizer(["A red ball came. <1.0 seconds> Tell me when"] * 20, 300)
    shape = TinyShape(
        vocabulary=len(tokenizer),
        hidden=64,
        layers=2,
        feed_forward=128,
        vision_hidden=32,
        vision_layers=2,
        vision_heads=2,
        vision_feed_forward=64,
        deepstack=(0,),
        side=SIDE,
    )
    model, processor = build_tiny(tokenizer, shape, 0)
    return model, Renderer(processor)


def turns_of(family: str, seed: int) -> tuple[Turn, ...]:
    timeline = stream(family, seed, "train", seconds=12)
    frames = WorldFrames(timeline, SIDE)
    (chunk,) = training_chunks(timeline, frames.frames)
    return chunk.turns


def spliced(family: str, seed: int) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """One stream's turns, and the same with another stream's after second `CUT`."""
    one, other = turns_of(family, seed), turns_of(family, seed + 1)
    later = [turn for turn in other if turn.second > CUT]
    return one, (*(turn for turn in one if turn.second <= CUT), *later)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainers_states_at_a_second_see_nothing_after_it(tiny, family: str):
    model, renderer = tiny
    loss = WeightedLoss(model).eval()
    states = []
    for turns in spliced(family, 3):
        # Background numbers of the other stream may be unknown here; rendering doesn't mind.
        rendered = renderer.render("", turns)
        until = max(s.stop for s in rendered.spans if s.second == CUT)
        batch = collate([(rendered, token_weights(rendered, LossWeights()))])
        batch["scored"] = torch.arange(until)
        with torch.no_grad():
            states.append((rendered.ids[:until], loss.hidden(batch)))
    (ids, before), (other_ids, after) = states
    assert ids == other_ids
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_the_states_do_move_after_the_change(tiny):
    model, renderer = tiny
    loss = WeightedLoss(model).eval()
    ends = []
    for turns in spliced("commentary", 3):
        rendered = renderer.render("", turns)
        batch = collate([(rendered, token_weights(rendered, LossWeights()))])
        batch["scored"] = torch.tensor([len(rendered) - 1])
        with torch.no_grad():
            ends.append(loss.hidden(batch))
    assert not torch.allclose(*ends, atol=1e-6)


@pytest.mark.parametrize("family", ["alerting", "delegation", "chat"])
def test_the_engines_replies_until_a_second_see_nothing_after_it(tiny, family: str):
    model, renderer = tiny
    said = []
    for turns in spliced(family, 5):
        with generating(model) as plain:
            engine = Engine(plain, renderer, max_new_tokens=6, details=True)
            state = Stream()
            handle = engine.open(state)
            replies = []
            for turn in turns:
                # Results answer the gold delegations, which this history replays.
                state.observe(turn.second, turn.frames, turn.queries)
                (reply,) = engine.step([handle])
                replies.append((turn.second, reply.tokens, reply.logprobs))
                assert turn.action is not None
                state.act(turn.action)
        said.append([r for r in replies if r[0] <= CUT])
    assert len(said[0]) == CUT + 1
    assert said[0] == said[1]


def ended(scene: Scene, time: float) -> Scene:
    """The scene without all that begins after `time`; what is there by then goes."""
    return replace(
        scene,
        cuts=tuple(cut for cut in scene.cuts if cut.start <= time),
        captions=tuple(each for each in scene.captions if each.start <= time),
        tracks=tuple(
            replace(track, stop=min(track.stop, time))
            for track in scene.tracks
            if track.start < time
        ),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_of_a_second_show_nothing_of_later_ones(family: str):
    timeline = stream(family, random.Random(family).randrange(1000), "train", seconds=12)
    scene = from_json(timeline.clip.scene)
    stopped = to_json(ended(scene, CUT + 1.0))
    other = replace(timeline, clip=replace(timeline.clip, scene=stopped))
    films = [WorldFrames(each, SIDE) for each in (timeline, other)]
    same = [len({film.frames(second)[0].tobytes() for film in films}) == 1 for second in range(12)]
    assert all(same[: CUT + 1])
    # It tells nothing of a stream in which nothing comes after that.
    assert not all(same) or scene == ended(scene, CUT + 1.0)
