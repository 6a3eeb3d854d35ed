"""What the run that made a checkpoint was told, from the config beside it; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from joyvl_train.config import Config
from joyvl_train.run import Run


def made_with(checkpoint: str | Path) -> Mapping[str, Any]:
    """The config of the run that made this checkpoint; empty where it comes from elsewhere."""
    path = Path(checkpoint).parent / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def tell_codec(config: Config, run: Run, checkpoint: str | Path) -> None:
    """Warns where this checkpoint was trained on frames that were coded in another way."""
    made = made_with(checkpoint)
    data, codec = made.get("data"), made.get("codec")
    trained = data.get("codec") if isinstance(data, dict) else None
    if trained is None:
        return
    if trained != config.data.codec:
        apart = [("data.codec", trained, config.data.codec)]
    else:
        before = codec if isinstance(codec, dict) and trained != "off" else {}
        own = vars(config.codec)
        apart = [(f"codec.{k}", before[k], own[k]) for k in own if before.get(k, own[k]) != own[k]]
    for key, value, now in apart:
        run.say(f"warning: {checkpoint} was trained with {key}={value}, this run has {now}")
