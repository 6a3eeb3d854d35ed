"""Streams are cut as a checkpoint was trained, unless the run says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from joyvl_train.config import Config
from recipes._made import as_trained, chunk_of


def made(folder: Path, config: Any, start: Any = None) -> Path:
    """A checkpoint of a run with this config, that began from `start`."""
    (folder / "checkpoint").mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text(
            config if isinstance(config, str) else yaml.dump(config)
        )
    if start is not None:
        (folder / "start.json").write_text(start if isinstance(start, str) else json.dumps(start))
    return folder / "checkpoint"


def of(recipe: str, chunk: Any) -> dict[str, Any]:
    return {"recipe": recipe, "stream": {"chunk_seconds": chunk}}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (of("sft", 40), 40),
        (of("grpo", 40), 40),
        (of("sft", 0), 100),  # a run that trains and names none
        (of("sft", "many"), 0),
        (of("sft", -3), 0),
        ({"recipe": "sft"}, 0),
        ({"stream": "long"}, 0),
        ("{broken", 0),
        (None, 0),
    ],
)
def test_the_chunk_is_that_of_the_run_beside_it(tmp_path: Path, config: Any, wanted: int) -> None:
    assert chunk_of(made(tmp_path / "run", config)) == wanted


def test_a_run_of_grpo_has_that_of_what_it_began_from(tmp_path: Path) -> None:
    first = made(tmp_path / "sft", of("sft", 40))
    second = made(tmp_path / "one", of("grpo", 0), {"path": str(first)})
    third = made(tmp_path / "two", of("grpo", 0), {"path": str(second)})
    assert chunk_of(third) == 40


@pytest.mark.parametrize("start", [None, "{broken", {}, {"path": 3}, [1], "itself"])
def test_a_start_that_is_not_told_leaves_it_open(tmp_path: Path, start: Any) -> None:
    if start == "itself":
        start = {"path": str(tmp_path / "run" / "checkpoint")}
    assert chunk_of(made(tmp_path / "run", of("grpo", 0), start)) == 0


@pytest.mark.parametrize(
    ("given", "trained", "wanted", "told"),
    [
        (0, 40, 40, "stream.chunk_seconds=40, as "),
        (0, 100, 100, ""),
        (60, 40, 60, "was trained with stream.chunk_seconds=40, this run has 60"),
        (40, 40, 40, ""),
        (0, None, 100, ""),
    ],
)
def test_a_run_takes_it_over_or_is_told(
    tmp_path: Path, given: int, trained: int | None, wanted: int, told: str
) -> None:
    lines: list[str] = []
    run = SimpleNamespace(say=lines.append)
    config = Config()
    config.stream.chunk_seconds = given
    there = made(tmp_path / "run", None if trained is None else of("sft", trained))
    as_trained(config, run, there)  # type: ignore[arg-type]
    assert config.stream.chunk == wanted
    assert len(lines) == bool(told) and told in "".join(lines)
