"""The recipe's own work: one model at a time on the run's device, LoRA with its rows of tokens."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from joyvl_train.baselines import polled
from joyvl_train.checkpoint import control_ids, load, load_for_inference, save
from joyvl_train.cli import compose
from joyvl_train.run import Run
from recipes import _measured, _speaking, sft
from tests.joyvl_train.conftest import build

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: Any) -> Path:
    """A random model whose tokenizer lacks the control tokens."""
    speaker = build("qwen3_vl", control_tokens=False)
    folder = tmp_path_factory.mktemp("bare") / "model"
    save(speaker.model, speaker.processor, folder)
    return Path(folder)


def smoke(folder: Path, base: Path, *overrides: str) -> Any:
    return compose(
        ROOT,
        [
            "recipe=sft",
            "setting=smoke",
            f"run.dir={folder / 'run'}",
            f"run.root={folder}",
            "run.threads=1",
            "data.workers=0",
            "data.size=64",
            "data.test_streams=2",
            "data.validation_streams=0",
            f"model.path={base}",
            *overrides,
        ],
    )


def test_models_are_held_one_at_a_time_and_asked_with_the_system_text(
    bare: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    loads: list[tuple[str, dict[str, int]]] = []
    held: list[Any] = []
    systems: list[str] = []

    def only_one(path: str, dtype: str, **bounds: int) -> Any:
        found = load_for_inference(path, dtype, **bounds)
        assert [model() for model in held] == [None] * len(held), "an earlier model is still held"
        loads.append((dtype, bounds))
        held.append(weakref.ref(found[0]))
        return found

    def noted(engine: Any, *cases: Any, **options: Any) -> Any:
        systems.append(engine.system)
        return polled(engine, *cases, **options)

    def trained_one(path: str, **options: Any) -> Any:
        found = load(path, **options)
        held.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(sft, "load", trained_one)
    monkeypatch.setattr(_speaking, "load_for_inference", only_one)
    monkeypatch.setattr(_measured, "polled", noted)
    changes = ("model.dtype=bfloat16", "model.max_pixels=8192", "prompt.system='Be brief.'")
    config = smoke(tmp_path, bare, *changes)
    with Run(config, ROOT) as run:
        sft.main(config, run)
        figures = run.read_metrics()
    assert len(held) == 3
    assert loads == [("bfloat16", {"min_pixels": 0, "max_pixels": 8192})] * 2
    assert systems == ["Be brief."]
    assert {"eval/onset_f1", "baseline/base_polled/onset_f1", "transfer/onset_f1"} <= set(figures)
    trained, _ = load(tmp_path / "run" / "checkpoint")
    assert trained.config.dtype == torch.float32  # as `load` was asked
    text = (tmp_path / "run" / "checkpoint" / "config.json").read_text()
    assert '"dtype": "bfloat16"' in text


def test_lora_trains_the_rows_of_added_tokens(bare: Path, tmp_path: Path) -> None:
    start, processor = load(bare, control_tokens="add")
    ids = control_ids(processor.tokenizer)
    assert len(ids) == 3
    config = smoke(tmp_path, bare, "model.lora.rank=2", "train.learning_rate=1e-2", "train.marks=1")
    with Run(config, ROOT) as run:
        sft.train(config, run, str(bare))
        logged = run.read_log()
    assert any(name.startswith("marks/") for line in logged for name in line)
    trained, processor = load(tmp_path / "run" / "checkpoint")
    assert control_ids(processor.tokenizer) == ids
    before, after = (m.get_input_embeddings().weight for m in (start, trained))
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(ids)


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_no_rank_waits_for_another_once_all_is_trained(
    command: str, bare: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """A group that is still there when a rank ends can abort it, and with it the evaluation."""
    inside: list[bool] = []
    monkeypatch.setattr(sft, "evaluate", lambda *told, **more: inside.append(dist.is_initialized()))
    config = smoke(tmp_path, bare, f"command={command}")
    trained = tmp_path / "run" / "checkpoint"  # by an earlier start
    shutil.copytree(bare, trained)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with Run(config, ROOT) as run:
            sft.main(config, run)
        assert inside == [False] and not dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.parametrize("command", ["run", "evaluate"])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_evaluates(
    rank: int, command: str, bare: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    done: list[int] = []
    monkeypatch.setattr(sft, "evaluate", lambda *told, **more: done.append(rank))
    config = smoke(tmp_path, bare, f"command={command}")
    shutil.copytree(bare, tmp_path / "run" / "checkpoint")  # of an earlier start
    with Run(config, ROOT) as run:
        monkeypatch.setattr(run, "is_main", rank == 0)
        sft.main(config, run)
    assert done == ([0] if rank == 0 else [])
