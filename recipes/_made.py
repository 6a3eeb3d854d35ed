"""What the run that made a checkpoint was told, from what stands beside it; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from joyvl_train.config import Config
from joyvl_train.run import Run, write_text
from joyvl_train.stream_config import StreamConfig

_STREAM = "stream.json"
_OTHER = "warning: {} was trained with {}={}, this run has {}"


def made_with(checkpoint: str | Path) -> Mapping[str, Any]:
    """The config of the run that made this checkpoint; empty where it comes from elsewhere."""
    path = Path(checkpoint).parent / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def as_trained(config: Config, run: Run, checkpoint: str | Path) -> None:
    """Cuts streams into chunks as long as this checkpoint was trained with, where the run names no
    length; warns where it names another, or codes frames in another way."""
    trained, given = chunk_of(checkpoint), config.stream.chunk_seconds
    if trained and not given:
        config.stream.chunk_seconds = trained
        if trained != StreamConfig().chunk:
            run.say(f"stream.chunk_seconds={trained}, as {checkpoint} was trained")
    elif trained and trained != given:
        run.say(_OTHER.format(checkpoint, "stream.chunk_seconds", trained, given))
    _tell_codec(config, run, checkpoint)


def keep_chunk(config: Config, checkpoint: Path) -> None:
    """Leaves in a checkpoint's folder how long the chunks were that it was trained with, so that it
    goes where the checkpoint goes."""
    told = {"chunk_seconds": config.stream.chunk}
    write_text(checkpoint / _STREAM, json.dumps(told) + "\n")


def chunk_of(checkpoint: str | Path) -> int:
    """The length of the chunks that this checkpoint was trained with; 0 where nothing tells."""
    try:
        told = json.loads((Path(checkpoint) / _STREAM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = made_with(checkpoint)
        told = made.get("stream") if made.get("recipe") in ("sft", "grpo") else None
    found = told.get("chunk_seconds") if isinstance(told, dict) else None
    return found if isinstance(found, int) and found > 0 else 0


def _tell_codec(config: Config, run: Run, checkpoint: str | Path) -> None:
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
        run.say(_OTHER.format(checkpoint, key, value, now))
