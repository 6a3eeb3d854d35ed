"""What recipe=grpo can't do, said before anything is loaded or written."""

from __future__ import annotations

import os
from importlib.util import find_spec

from joyvl_train.config import Config, UserError, nearest
from recipes._served import check_served
from rl.plan import check_mix
from rl.rewards import PARTS


def check(config: Config) -> None:
    """Raises `UserError` for what this recipe can't do, or would pass over in silence."""
    if config.command not in ("run", "windows"):
        raise UserError(f"command={config.command}: recipe=grpo has run and windows")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if config.command == "windows" and ranks > 1:
        raise UserError("command=windows is one process: leave engine.processes out")
    for name in ("accumulation", "rows_per_step"):
        if getattr(config.train, name) != 1:
            raise UserError(
                f"train.{name}={getattr(config.train, name)}: recipe=grpo takes all rows of a step "
                "together, or in grpo.updates parts; set it to 1"
            )
    _check_unused(config)
    check_served(config)
    check_mix(config.windows.mix, config.data.kind != "path")
    if config.grpo.supervised % ranks:
        raise UserError(
            f"grpo.supervised={config.grpo.supervised}: is dealt to {ranks} ranks; take a multiple"
        )
    if config.reward.judge and not config.agents.url:
        raise UserError("reward.judge=true: agents.url is empty; name the model that judges")
    if config.reward.judge and not config.agents.model:
        raise UserError(
            f"reward.judge=true: agents.model is empty; name the model that {config.agents.url} "
            "serves"
        )
    if config.grpo.decoupled and config.grpo.advantage == "turn":
        raise UserError("grpo.decoupled=true: goes with grpo.advantage=trajectory alone")
    if config.train.eval_every and not config.data.validation_streams:
        raise UserError(
            f"train.eval_every={config.train.eval_every}: there is nothing to choose the best step "
            "on, with data.validation_streams=0; raise it, or set train.eval_every=0"
        )
    own = {part: getattr(config.reward, part) for part in PARTS}
    every = [own, *config.reward.families.values()]
    if not any(weight for weights in every for weight in weights.values()):
        raise UserError(
            "reward: every part has the weight 0, so that all rollouts earn the same; raise one of "
            f"reward.{', '.join(PARTS)}"
        )
    for family, weights in config.reward.families.items():
        for part, weight in weights.items():
            if part not in PARTS:
                raise UserError(
                    f"reward.families.{family}.{part}: is no part of the reward."
                    f"{nearest(part, PARTS)} There are {', '.join(PARTS)}"
                )
            if not 0 <= weight <= 100:
                raise UserError(f"reward.families.{family}.{part}={weight}: takes 0 to 100")


def _check_unused(config: Config) -> None:
    """Raises `UserError` for keys of other recipes that would change nothing here, or harm."""
    train, lora = config.train, config.model.lora
    if train.marks:
        raise UserError(
            f"train.marks={train.marks:g}: marks are read by recipe=sft and recipe=base alone; set "
            "it to 0"
        )
    if train.vision_cache:
        raise UserError(
            f"train.vision_cache={train.vision_cache}: recipe=grpo keeps a frozen tower's features "
            "in memory alone; take it out"
        )
    if lora.dropout:
        raise UserError(
            f"model.lora.dropout={lora.dropout:g}: ratios to the policy that drew would be noise; "
            "set it to 0"
        )
    if config.run.wandb != "off" and find_spec("wandb") is None:
        raise UserError("run.wandb needs wandb: pip install 'joyvl[wandb]'")
