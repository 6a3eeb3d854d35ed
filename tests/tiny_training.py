"""A very small model, samples for it, and one training run of them as a process of its own.

    python tests/tiny_training.py FOLDER '{"steps": 4, ...}'

writes FOLDER/log.jsonl, FOLDER/figures.json and FOLDER/checkpoint; with `stop` it ends without a
word after that many steps. `launch` starts it, on several ranks too.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.checkpoint import Processor, TinyShape, build_tiny, train_tokenizer
from joyvl_train.collate import Part
from joyvl_train.config import EngineConfig, LoraConfig, TrainConfig
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.stream import Stream, StreamSettings
from joyvl_train.weights import LossWeights, Targets, token_weights

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["the red ball rolls left and a dog runs by", "seconds", "fire now", "[Background 1] ok"]
SHAPE = TinyShape(
    vocabulary=420,
    hidden=48,
    layers=2,
    heads=4,
    kv_heads=2,
    feed_forward=96,
    vision_hidden=32,
    vision_layers=2,
    vision_heads=2,
    vision_feed_forward=48,
    deepstack=(0,),
    side=64,
)


def tiny(seed: int = 0) -> tuple[Any, Processor]:
    """A random Qwen3-VL of some 100 thousand parameters."""
    return build_tiny(train_tokenizer(WORDS * 3, SHAPE.vocabulary), SHAPE, seed)


def picture(number: int) -> Image.Image:
    """One of the pictures, all different."""
    rng = random.Random(number)
    colours = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(4)]
    image = Image.new("RGB", (2, 2))
    image.putdata(colours)
    return image.resize((64, 64), Image.Resampling.NEAREST)


class Clips:
    """Short streams of different lengths (a `collate.Source`); a few of them are turn-based.

    marked: every other image token of a stream has a mark (`joyvl_train.marks`).
    """

    def __init__(
        self,
        renderer: Renderer,
        weights: LossWeights,
        count: int = 12,
        *,
        turns: bool = False,
        marked: bool = False,
    ) -> None:
        self._renderer = renderer
        self._marked = marked
        self._weights = weights
        self._count = count
        self._turns = turns
        self._sample = lru_cache(None)(self._make)

    def __len__(self) -> int:
        return self._count

    def length(self, index: int) -> int:
        return len(self.render(index)[0])

    def render(self, index: int) -> tuple[Rendered, Targets]:
        return self._sample(index)

    def _make(self, index: int) -> tuple[Rendered, Targets]:
        rng = random.Random(f"clip/{index}/{self._turns}")
        if self._turns:
            rendered = self._renderer.render_question(
                rng.choice(WORDS), [picture(rng.randrange(20))], Response("fire now")
            )
        else:
            stream = Stream(StreamSettings(chunk_seconds=30, lead=2))
            for second in range(rng.randrange(3, 9)):
                queries = [rng.choice(WORDS)] if second == 0 else []
                stream.observe(second, [picture(rng.randrange(20))], queries)
                says = [Silence()] * 4 + [Response("fire now"), Delegation("ok", "the red ball")]
                stream.act(rng.choice(says))
            rendered = self._renderer.render("", stream.turns)
        targets = token_weights(rendered, self._weights)
        if not self._marked:
            return rendered, targets
        ids = np.asarray(rendered.ids)
        places = np.arange(len(ids))
        marks = np.where(places % 2 == 0, places // 2 % 2, UNKNOWN)
        shown = ids == self._renderer.processor.image_id
        return rendered, replace(targets, marks=np.where(shown, marks, UNKNOWN)[:, None])


def parts(
    processor: Processor, weights: LossWeights | None = None, *, marked: bool = False
) -> list[Part]:
    """Time-aligned and turn-based samples, mixed."""
    renderer = Renderer(processor)
    weights = weights or LossWeights()
    return [
        Part("streams", Clips(renderer, weights, marked=marked), 0.7),
        Part("questions", Clips(renderer, weights, turns=True), 0.3),
    ]


def launch(
    folder: Path, ranks: int = 1, wait: bool = True, script: str = __file__, **options: Any
) -> list[subprocess.Popen[str]]:
    """Start a run of `script` on `ranks` processes; with `wait`, until they end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        environment.pop(name, None)
    started = []
    for rank in range(ranks):
        if ranks > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, script, str(folder), json.dumps(options)]
        started.append(
            subprocess.Popen(
                command,
                env=dict(environment),
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    if wait:
        texts = [process.communicate(timeout=600)[0] for process in started]
        for process, text in zip(started, texts, strict=True):
            assert process.returncode == 0, text
            process.text = text  # type: ignore[attr-defined]
    return started


def main(arguments: Sequence[str]) -> None:
    """One run; see the module's text."""
    torch.set_num_threads(1)
    from joyvl_train import head
    from joyvl_train.model_weights import save_final
    from joyvl_train.ranks import is_first, leave_others
    from joyvl_train.saved_steps import resumed_step
    from joyvl_train.training import fit, freeze, prepare_engine, with_lora

    folder, options = Path(arguments[0]), json.loads(arguments[1])
    engine = EngineConfig(**options.pop("engine", {}))
    lora = LoraConfig(**options.pop("lora", {}))
    frozen = options.pop("freeze", [])
    fit_options = options.pop("fit", {})
    stop = options.pop("stop", 0)
    head._POSITIONS = options.pop("head_rows", head._POSITIONS)
    tokens = options.pop("tokens", [])
    dtype = getattr(torch, options.pop("dtype", "float32"))
    train = TrainConfig(
        **{"precision": "fp32", "row_tokens": 320, "save_every": 2, "log_every": 3, **options}
    )
    prepare_engine(engine)
    model, processor = tiny()
    freeze(model, frozen)
    model = with_lora(model.to(dtype), **vars(lora), token_ids=tokens)
    log = folder / "log.jsonl"
    start = resumed_step(folder / "steps")
    folder.mkdir(parents=True, exist_ok=True)
    if is_first() and log.exists():
        lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= start]
        log.write_text("".join(line + "\n" for line in kept))

    def tell(line: Any) -> None:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def validate(step: int) -> dict[str, float]:
        if stop and step > stop:
            os._exit(0)
        weight = next(model.parameters())
        return {
            "validation/norm": float(weight.detach().double().norm()) if weight.numel() else 0.0
        }

    figures = fit(
        model,
        parts(processor, marked="marks" in fit_options),
        train,
        engine,
        folder / "steps",
        seed=3,
        log=tell,
        validate=validate,
        **fit_options,
    )
    save_final(model, processor, folder / "checkpoint", None)
    if is_first():
        (folder / "figures.json").write_text(json.dumps(figures))
    leave_others()


if __name__ == "__main__":
    main(sys.argv[1:])
