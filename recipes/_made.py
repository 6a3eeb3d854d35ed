"""What the run that made a checkpoint was told, from what stands beside it; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from joyvl_train.config import Config
from joyvl_train.run import Run, write_text
from joyvl_train.stream_config import LEAST_CHARS, StreamConfig, in_force

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
    """Cuts streams into chunks, and remembers of them, as this checkpoint was trained where the run
    does not say otherwise; warns where it does, or codes frames in another way."""
    own, plain, taken = config.stream, StreamConfig(), []
    for key, value in trained_stream(checkpoint).items():
        given = getattr(own, key)
        if given == getattr(plain, key):  # nothing was said of it
            setattr(own, key, value)
            if value != in_force(plain)[key]:
                taken.append(f"stream.{key}={value}")
        elif value != given:
            run.say(_OTHER.format(checkpoint, f"stream.{key}", value, given))
    if taken:
        run.say(f"{' '.join(taken)}, as {checkpoint} was trained")
    _tell_codec(config, run, checkpoint)


def keep_stream(config: Config, checkpoint: Path) -> None:
    """Leaves in a checkpoint's folder how the streams were cut and remembered that it was trained
    on, so that it goes where the checkpoint goes."""
    write_text(checkpoint / _STREAM, json.dumps(in_force(config.stream)) + "\n")


def trained_stream(checkpoint: str | Path) -> Mapping[str, int]:
    """Those keys of `stream` that this checkpoint was trained with and that are known."""
    try:
        told = json.loads((Path(checkpoint) / _STREAM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = made_with(checkpoint)
        told = made.get("stream") if made.get("recipe") in ("sft", "grpo") else None
    found = told if isinstance(told, dict) else {}
    least = {"chunk_seconds": 1, "summary_chars": LEAST_CHARS, "dialogue_tokens": 0}
    return {
        key: found[key]
        for key, low in least.items()
        if isinstance(found.get(key), int) and found[key] >= low
    }


def chunk_of(checkpoint: str | Path) -> int:
    """The length of the chunks that this checkpoint was trained with; 0 where nothing tells."""
    return trained_stream(checkpoint).get("chunk_seconds", 0)


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
