"""Rollouts a second: ours, and a generation from the whole growing prompt at every turn.

    python benchmarks/rollouts.py [--checkpoint DIR] [--windows 8] [--group 8] [--out FILE]

Both roll out the same windows, drawn as recipe=grpo draws those of a step but for the seconds that
tempt to speak (none are mined, and none are named), with the same policy, temperature and token
limit. The generic way is what a trainer does that knows no streams: at every
second the prompts of all rollouts, with all their frames, go through `generate` as one padded
batch. Ours encodes a window's prompt and each frame once, keeps the cache, and reads a second once
for all rollouts that have said the same so far. The texts are drawn by different random numbers;
how many tokens and turns came of it stands in the table. Then ours without one of its gains each.
Rounds are taken in turn, each with the windows of another step, and the ratio is the median of
theirs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page, row, versions
from data_pipeline.world.corpus import WorldStreams, family_weights
from joyvl_train.actions import ActionFormatError, parse_action
from joyvl_train.branching import BranchingEngine
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.heldout import Step
from joyvl_train.rendering import Renderer
from joyvl_train.rl_config import WindowsConfig
from joyvl_train.stream import StreamSettings
from joyvl_train.trainer import generating
from rl.plan import Plan
from rl.rollout import Rollout, roll
from rl.windows import Opened, Sizes, open_window

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "rollouts.md"
TEMPERATURE, LIMIT = 1.0, 24
LONGEST = 60  # seconds of a clip, as in recipe=grpo


@dataclass
class Done:
    """What a way of rolling out came to."""

    seconds: float
    rollouts: int
    turns: int
    tokens: int


def opened(renderer: Renderer, count: int, before: int, side: int, step: int) -> list[Opened]:
    """The windows of one step, of the kinds that training draws and of clips as long as its own,
    but without alarms and lures; answer windows from `before` seconds before what is due."""
    weights = family_weights((), {})
    clips = WorldStreams("train", 77, 4000, weights, "drawn", side, longest=LONGEST)
    plan = Plan(clips, Sizes(before, 4), WindowsConfig().mix)
    found: list[Opened] = []
    for window in plan.windows(step, count):
        timeline, frames = plan.clip(window)
        each = open_window(
            window,
            timeline,
            frames,
            StreamSettings(100, 10),
            prepare=lambda picture: renderer.processor.images([picture]),
        )
        found.append(each)
    return found


def ours(model: Any, renderer: Renderer, windows: Sequence[Opened], group: int) -> Done:
    engine = BranchingEngine(
        model, renderer, max_new_tokens=LIMIT, temperature=TEMPERATURE, details=True
    )
    begun = time.perf_counter()
    found = [r for of in roll(engine, windows, group) for r in of]
    return told(time.perf_counter() - begun, found)


def apart(model: Any, renderer: Renderer, windows: Sequence[Opened], group: int) -> Done:
    """Ours, but every rollout has its prompt encoded for itself."""
    engine = BranchingEngine(
        model, renderer, max_new_tokens=LIMIT, temperature=TEMPERATURE, details=True
    )
    begun = time.perf_counter()
    found = []
    for number in range(group):
        again = [Opened(w.window, w.stream.fork(), w.episode.fork(), w.show) for w in windows]
        found += [r for of in roll(engine, again, 1, seed=number) for r in of]
    return told(time.perf_counter() - begun, found)


def told(seconds: float, found: Sequence[Rollout]) -> Done:
    turns = sum(len(rollout.sampled) for rollout in found)
    return Done(seconds, len(found), turns, sum(rollout.tokens for rollout in found))


def generic(model: Any, renderer: Renderer, windows: Sequence[Opened], group: int) -> Done:
    """At every second one padded batch of whole prompts through `generate`."""
    begun = time.perf_counter()
    going = [(w, w.stream.fork(), w.episode.fork()) for w in windows for _ in range(group)]
    done = Done(0.0, len(going), 0, 0)
    over: set[int] = set()
    for offset in range(max(w.window.stop - w.window.first for w in windows)):
        live = []
        for number, (w, stream, episode) in enumerate(going):
            second = w.window.first + offset
            if second < w.window.stop and number not in over:
                stream.observe(second, w.show(second), *episode.arrivals(second))
                live.append(number)
        if not live:
            break
        streams = [going[number][1] for number in live]
        prompts = [renderer.render(stream.memory_text, stream.turns) for stream in streams]
        length = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), length), renderer.end_id)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, length - len(prompt) :] = torch.tensor(prompt.ids)
            mask[i, length - len(prompt) :] = 1
        images = {k: torch.cat([p.images[k] for p in prompts]) for k in prompts[0].images}
        device = model.device
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                mm_token_type_ids=(ids == renderer.processor.image_id).int().to(device),
                **{k: v.to(device) for k, v in images.items()},
                max_new_tokens=LIMIT,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                eos_token_id=list(renderer.stop_ids),
                pad_token_id=renderer.end_id,
            )
        for number, line in zip(live, out[:, length:].tolist(), strict=True):
            stop = next((i for i, t in enumerate(line) if t in renderer.stop_ids), len(line) - 1)
            done.tokens += stop + 1
            done.turns += 1
            try:
                action = parse_action(renderer.read(line[:stop]))
            except ActionFormatError:
                over.add(number)
                continue
            _, stream, episode = going[number]
            turn = stream.open_turn
            assert turn is not None
            episode.note(Step(turn.second, action, turn.queries, turn.results), stream.act(action))
    done.seconds = time.perf_counter() - begun
    return done


WAYS: dict[str, Callable[..., Done]] = {
    "ours": ours,
    "ours, each rollout's prompt encoded for itself": apart,
    "`generate` from the whole prompt at every turn": generic,
}


def measure(
    checkpoint: str, windows: int, group: int, sizes: Sequence[int], rounds: int, side: int
) -> str:
    model, processor = load_for_inference(checkpoint)
    renderer = Renderer(processor)
    lines = []
    for size in sizes:
        figures: dict[str, list[Done]] = {name: [] for name in WAYS}
        with generating(model) as plain:
            for step in range(rounds):
                for name, way in WAYS.items():
                    drawn = opened(renderer, windows, size, side, step)
                    figures[name].append(way(plain, renderer, drawn, group))
        head = ["windows", "way", "rollouts/s", "turns", "tokens", "times as fast"]
        if not lines:
            lines += [row(head), row(["---"] * len(head))]
        base = figures["`generate` from the whole prompt at every turn"]
        for name, all_done in figures.items():
            ratios = [b.seconds / d.seconds for b, d in zip(base, all_done, strict=True)]
            rate = statistics.median(d.rollouts / d.seconds for d in all_done)
            turns, tokens = sum(d.turns for d in all_done), sum(d.tokens for d in all_done)
            cells = [f"{size} + 5 s", name, f"{rate:.1f}", f"{turns}", f"{tokens}"]
            lines.append(row([*cells, f"{statistics.median(ratios):.1f}"]))
    device = str(next(model.parameters()).device)
    note = [
        f"{windows} windows with {group} rollouts each, {rounds} rounds, on {device}. A window's",
        "pictures are prepared once in all three ways; rendering them is part of each.",
    ]
    listed = " ".join(map(str, sizes))
    command = (
        f"rollouts.py --checkpoint CHECKPOINT --windows {windows} --group {group} "
        f"--sizes {listed} --rounds {rounds} --side {side}"
    )
    return page("Rollouts a second", command, versions("torch", "transformers"), lines, note)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", default=str(ROOT / "models" / "tiny"))
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--side", type=int, default=96, help="of frames, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    text = measure(
        given.checkpoint, given.windows, given.group, given.sizes, given.rounds, given.side
    )
    keep(given.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
