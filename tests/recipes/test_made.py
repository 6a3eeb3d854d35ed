"""Streams are cut as a checkpoint was trained, unless the run says otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from joyvl_train.cli import compose
from joyvl_train.config import Config, UserError, check_windows
from joyvl_train.memory import Limits
from recipes._made import as_trained, chunk_of, keep_stream, trained_stream
from recipes._world import settings

ROOT = Path(__file__).parents[2]


def made(folder: Path, config: Any) -> Path:
    """A checkpoint of a run with this config."""
    (folder / "checkpoint").mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text(
            config if isinstance(config, str) else yaml.dump(config)
        )
    return folder / "checkpoint"


def of(recipe: str, chunk: Any) -> dict[str, Any]:
    return {"recipe": recipe, "stream": {"chunk_seconds": chunk}}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (of("sft", 40), 40),
        (of("grpo", 40), 40),
        (of("sft", 0), 0),
        (of("base", 40), 0),  # knows no streams
        (of("sft", "many"), 0),
        (of("sft", -3), 0),
        ({"recipe": "sft"}, 0),
        ({"recipe": "sft", "stream": "long"}, 0),
        ("{broken", 0),
        (None, 0),
    ],
)
def test_the_chunk_is_that_of_the_run_beside_it(tmp_path: Path, config: Any, wanted: int) -> None:
    assert chunk_of(made(tmp_path / "run", config)) == wanted


@pytest.mark.parametrize("config", [None, of("sft", 100), of("grpo", 0)])
def test_a_checkpoint_takes_it_along(tmp_path: Path, config: Any) -> None:
    checkpoint = made(tmp_path / "run", config)
    told = Config()
    told.stream.chunk_seconds = 40
    keep_stream(told, checkpoint)
    assert chunk_of(checkpoint) == 40
    assert chunk_of(checkpoint.rename(tmp_path / "elsewhere")) == 40


def test_what_is_remembered_is_as_it_was_trained_unless_the_run_says_otherwise(
    tmp_path: Path,
) -> None:
    checkpoint, told = made(tmp_path / "run", None), Config()
    told.stream.summary_chars, told.stream.dialogue_tokens = 400, 0
    keep_stream(told, checkpoint)
    assert trained_stream(checkpoint) == {
        "chunk_seconds": 100,
        "summary_chars": 400,
        "dialogue_tokens": 0,
    }
    lines: list[str] = []
    run: Any = SimpleNamespace(say=lines.append)
    taken = Config()
    as_trained(taken, run, checkpoint)
    limits = settings(taken).limits
    assert (limits.summary_chars, limits.dialogue_tokens) == (400, 0)
    assert lines == [
        f"stream.summary_chars=400 stream.dialogue_tokens=0, as {checkpoint} was trained"
    ]
    other = Config()
    other.stream.summary_chars = 900
    as_trained(other, run, checkpoint)
    assert settings(other).limits.summary_chars == 900
    assert "was trained with stream.summary_chars=400, this run has 900" in lines[1]
    assert settings(Config()).limits == Limits()


@pytest.mark.parametrize("text", ["{broken", "[1]", '{"chunk_seconds": "many"}', "{}"])
def test_what_is_no_length_leaves_it_open(tmp_path: Path, text: str) -> None:
    checkpoint = made(tmp_path / "run", None)
    (checkpoint / "stream.json").write_text(text)
    assert chunk_of(checkpoint) == 0


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


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["recipe=sft", "setting=short"], 40),
        (["recipe=sft", "setting=short", "data=photo"], 40),
        (["recipe=sft", "setting=short", "data.path=clips.json"], 0),
        (["recipe=sft"], 0),
        (["recipe=serve", "setting=short"], 0),
        (["recipe=grpo", "setting=short"], 0),
        (["recipe=sft", "setting=short", "stream.chunk_seconds=60"], 60),
    ],
)
def test_the_short_setting_trains_short_chunks_and_asks_for_none(
    overrides: list[str], wanted: int
) -> None:
    assert compose(ROOT, overrides).stream.chunk_seconds == wanted


def test_a_lead_that_a_trained_chunk_is_too_short_for_is_one_line(tmp_path: Path) -> None:
    config = compose(ROOT, ["recipe=serve", "stream.lead=45"])
    as_trained(config, SimpleNamespace(say=print), made(tmp_path / "run", of("sft", 40)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="stream: lead is 45 s and a chunk 40 s"):
        settings(config)


def test_what_only_a_trained_chunk_can_hold_is_left_to_it(tmp_path: Path) -> None:
    config = compose(ROOT, ["recipe=grpo", "windows.pending=90", "stream.lead=20"])
    with pytest.raises(UserError, match="stream.chunk_seconds=100"):
        check_windows(config)
    as_trained(config, SimpleNamespace(say=print), made(tmp_path / "run", of("sft", 400)))  # type: ignore[arg-type]
    check_windows(config)
