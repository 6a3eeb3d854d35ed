"""GRPO whose rollouts a real vLLM draws: what it tells of them, and whose weights they come of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from joyvl_train.checkpoint import load
from joyvl_train.cli import main as command_line
from joyvl_train.config import EngineConfig, TrainConfig
from joyvl_train.rendering import Renderer
from rl.grpo import Grpo
from rl.plan import Plan
from rl.served import ServedSampler, publish
from rl.settings import Settings
from rl.windows import Sizes
from tests.rl.policies import SETTINGS
from tests.rl.tiny_grpo import MIX, Clips
from tests.serve.test_faults import free_port
from tests.vllm.served import PYTHON, ROOT, needs_vllm

pytestmark = [pytest.mark.slow, needs_vllm, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(name="grpo")
def _grpo(folder: Path, server: str, tmp_path: Path) -> Iterator[Grpo]:
    model, processor = load(folder, dtype=torch.float32)
    model.generation_config.update(do_sample=True, top_k=1, top_p=0.5)
    renderer = Renderer(processor)

    def written(trained: Any) -> Path:
        return publish(trained, processor, tmp_path / "policy", folder, torch.float32)

    def served(rank: int, ranks: int) -> ServedSampler:
        return ServedSampler(f"{server}/v1", "tiny", renderer, written, max_new_tokens=8)

    grpo = Grpo(
        model,
        renderer,
        Plan(Clips("alerting", "delegation", "qa"), Sizes(3, 2, 4, 5), MIX),
        SETTINGS,
        Settings(windows=4, group=4, rounds=1, max_new_tokens=8),
        TrainConfig(steps=3, learning_rate=3e-3, warmup=0, precision="fp32"),
        EngineConfig(),
        tmp_path / "steps",
        served=served,
    )
    yield grpo
    grpo.close()


def test_what_is_drawn_is_told_as_training_sees_it_step_by_step(grpo: Grpo) -> None:
    gaps = []
    for step in range(3):
        figures = grpo.update(step)
        gaps.append(figures["grpo/gap"])
        assert figures["grpo/groups_teaching"] >= 1 and figures["train/grad_norm"] > 0
        assert figures["grpo/importance"] == pytest.approx(1, abs=1e-3)
    assert max(gaps) < 1e-3  # of natural logarithms, in float32


def test_old_weights_would_be_seen(grpo: Grpo, monkeypatch: pytest.MonkeyPatch) -> None:
    grpo.update(0)
    monkeypatch.setattr(grpo._served, "take", lambda model: None)
    assert grpo.update(1)["grpo/gap"] > 1e-2


def test_the_recipe_starts_one_and_ends_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    code = command_line(
        [
            *(
                "recipe=grpo",
                "setting=smoke",
                f"checkpoint={folder}",
                f"run.dir={tmp_path / 'run'}",
            ),
            *("grpo.sampler=vllm", f"serve.vllm_python={PYTHON}", f"serve.vllm_port={free_port()}"),
            "serve.vllm_options=[--enforce-eager,--max-model-len,8192]",
            *(f"data.cache_dir={tmp_path / 'cache'}", "data.workers=0", "run.threads=1"),
        ],
        ROOT,
    )
    assert code == 0 and (tmp_path / "run" / "checkpoint" / "config.json").exists()
    said = (tmp_path / "run" / "vllm.log").read_text()
    assert "reload_weights" in said or "/collective_rpc" in said
    assert not list((tmp_path / "run").glob("policy-*"))
