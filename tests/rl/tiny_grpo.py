"""A small policy, its windows, and one run of GRPO as a process of its own.

    python tests/rl/tiny_grpo.py FOLDER '{"steps": 2, ...}'

writes FOLDER/log.jsonl and FOLDER/checkpoint; with `stop` it ends without a word in the validation
after that step. `tests.tiny_training.launch` starts it, on several ranks too.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from joyvl_train.config import EngineConfig, TrainConfig
from joyvl_train.parts import freeze
from joyvl_train.rendering import Renderer
from joyvl_train.saved_steps import resumed_step
from rl.fit import fit_policy
from rl.grpo import Grpo
from rl.plan import Plan
from rl.policy_loss import Policy
from rl.settings import Settings
from rl.supervised import Supervised
from rl.windows import Sizes
from tests.joyvl_train.lively import enliven
from tests.rl.policies import SETTINGS, world
from tests.tiny_training import parts, tiny

MIX = {"answer": 1.0, "silence": 1.0, "pending": 0.5}
SMALL: dict[str, Any] = {"windows": 3, "group": 3, "rounds": 1, "max_new_tokens": 6}


class Clips:
    """A few clips of the world, small."""

    def __init__(self, *families: str) -> None:
        self._clips = [world(f, n) for n, f in enumerate(families or ("alerting", "delegation"))]

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Any:
        return self._clips[index]


@lru_cache(maxsize=1)
def _lively() -> tuple[Any, Renderer]:
    model, processor = tiny()
    renderer = Renderer(processor)
    return enliven(model, renderer), renderer


def lively() -> tuple[Any, Renderer]:
    """A random model that mostly keeps the grammar; each call gives one of its own."""
    model, renderer = _lively()
    return copy.deepcopy(model), renderer


def trainer(
    folder: Path,
    *,
    settings: Settings | None = None,
    freezes: Sequence[str] = (),
    engine: EngineConfig | None = None,
    mix: Mapping[str, float] = MIX,
    questions: Any = None,
    shown: int = 0,
    clips: Any = None,
    reject: Any = None,
    **train: Any,
) -> Grpo:
    """GRPO on a few windows; shown: rows of gold streams in each step."""
    model, renderer = lively()
    freeze(model, freezes)
    clips = clips or Clips("alerting", "delegation", "qa")
    told = {"reject": reject} if reject else {}
    plan = Plan(clips, Sizes(3, 2, 4, 5), mix, questions=100 if questions else 0, **told)

    def gold(rank: int, ranks: int) -> Supervised:
        streams = parts(renderer.processor)
        return Supervised(streams, shown, row_tokens=320, seed=3, rank=rank, ranks=ranks)

    usual = {"steps": 3, "learning_rate": 1e-3, "warmup": 0, "precision": "fp32"}
    return Grpo(
        model,
        renderer,
        plan,
        SETTINGS,
        settings or Settings(**SMALL),
        TrainConfig(**{**usual, "save_every": 1, "log_every": 1, **train}),
        engine or EngineConfig(),
        folder,
        questions=questions,
        supervised=gold if shown else None,
    )


def main(arguments: Sequence[str]) -> None:
    """One run; see the module's text."""
    from joyvl_train.model_weights import save_final
    from joyvl_train.ranks import is_first, leave_others
    from joyvl_train.training import prepare_engine

    torch.set_num_threads(1)
    folder, options = Path(arguments[0]), json.loads(arguments[1])
    engine = EngineConfig(**options.pop("engine", {}))
    stop, kl = options.pop("stop", 0), options.pop("kl", 0.0)
    settings = Settings(**{**SMALL, **options.pop("settings", {})}, policy=Policy(kl=kl))
    prepare_engine(engine)
    grpo = trainer(folder / "steps", settings=settings, engine=engine, **options)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.jsonl"
    start = resumed_step(folder / "steps")
    if is_first() and log.exists():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= start]
        log.write_text("".join(line + "\n" for line in lines))

    def tell(line: Mapping[str, Any]) -> None:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def validate(step: int) -> dict[str, float]:
        if stop and step > stop:
            os._exit(0)
        return {}

    fit_policy(grpo, grpo.train, log=tell, validate=validate, say=lambda text: None)
    save_final(grpo.model, _lively()[1].processor, folder / "checkpoint", None)
    leave_others()


if __name__ == "__main__":
    main(sys.argv[1:])
