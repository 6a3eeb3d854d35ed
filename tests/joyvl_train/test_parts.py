"""What of a model is trained: float32 master weights, and rows of tokens beside LoRA matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText

from joyvl_train.checkpoint import control_ids, load
from joyvl_train.collate import collate, model_inputs
from joyvl_train.config import EngineConfig, LoraConfig, TrainConfig
from joyvl_train.engine import Engine
from joyvl_train.model_weights import load_weights, save_final, whole_weights
from joyvl_train.parts import arithmetic, freeze, part_of, with_lora
from joyvl_train.rendering import Renderer
from joyvl_train.trainer import generating
from joyvl_train.training import fit
from tests.tiny_training import parts, picture, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def train(model: Any, processor: Any, folder: Path, validate: Any = None, **changes: Any) -> None:
    known = {"steps": 2, "row_tokens": 320, "warmup": 0, "schedule": "constant", "log_every": 1}
    config = TrainConfig(**{**known, "save_every": 0, **changes})
    fit(
        model,
        parts(processor),
        config,
        EngineConfig(),
        folder,
        seed=3,
        validate=validate,
    )


# -- master weights ------------------------------------------------------------------------------


def test_an_update_of_a_ten_thousandth_survives_bf16(tmp_path: Path) -> None:
    model, processor = tiny()
    model.to(torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, processor, tmp_path / "steps", learning_rate=2e-6)  # weights of about 0.02
    moved = rounded = total = 0
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, name
        old = before[name].float()
        assert (parameter - old).abs().max() < 1e-5, name
        if old.ndim > 1 and ".visual." not in name:
            moved += int((parameter != old).sum())
            rounded += int((parameter.to(torch.bfloat16) == before[name]).sum())
            total += old.numel()
    assert moved > 0.95 * total
    # In bf16 itself most of it would have been lost.
    assert rounded > 0.8 * total


def test_the_checkpoint_is_written_in_the_type_asked_for(tmp_path: Path) -> None:
    model, processor = tiny()
    model.to(torch.bfloat16)
    train(model, processor, tmp_path / "steps", learning_rate=1e-3)
    save_final(model, processor, tmp_path / "checkpoint", None, torch.bfloat16)
    state = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in state  # tied weights are written once
    assert json.loads((tmp_path / "checkpoint" / "config.json").read_text())["dtype"] == "bfloat16"
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint").dtype == (
        torch.bfloat16
    )
    name = "model.language_model.norm.weight"
    assert torch.equal(state[name], model.get_parameter(name).to(torch.bfloat16))


@pytest.mark.parametrize("frozen", [["vision"], ["vision", "projector"]])
def test_frozen_weights_stay_small_and_the_model_still_speaks(
    tmp_path: Path, frozen: list[str]
) -> None:
    model, processor = tiny()
    model.to(torch.bfloat16)
    freeze(model, frozen)
    renderer = Renderer(processor)

    def validate(step: int) -> dict[str, float]:
        with generating(model) as plain:
            engine = Engine(plain, renderer, max_new_tokens=2)
            prompt = renderer.render_question("the red ball", [picture(1)])
            return {"validation/tokens": len(engine.generate_batch([prompt])[0].tokens)}

    changes = {"eval_every": 1, "learning_rate": 1e-4, "precision": "bf16"}
    train(model, processor, tmp_path, validate, **changes)
    for name, parameter in model.named_parameters():
        wanted = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == wanted, name


def test_fp32_arithmetic_takes_all_weights_along(tmp_path: Path) -> None:
    model, processor = tiny()
    model.to(torch.bfloat16)
    freeze(model, ["vision"])
    train(model, processor, tmp_path, precision="fp32")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("half", [True, False])
def test_auto_is_what_the_cpu_has_instructions_for(
    half: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("joyvl_train.parts._cpu_has_bf16", lambda: half)
    assert (arithmetic("bf16"), arithmetic("fp32")) == ("bf16", "fp32")
    assert arithmetic("auto") == ("bf16" if half else "fp32")
    model, processor = tiny()
    freeze(model, ["vision"])
    train(model.to(torch.bfloat16), processor, tmp_path)
    kept = {part_of(name): p.dtype for name, p in model.named_parameters()}["vision"]
    assert kept == (torch.bfloat16 if half else torch.float32)


def test_a_cpu_is_asked_what_it_has() -> None:
    told = torch.cpu.get_capabilities()
    if told.get("amx_bf16") or told.get("avx512_bf16"):
        assert arithmetic("auto") == "bf16"
    elif told.get("architecture") == "x86_64" and not told.get("avx512_f"):
        assert arithmetic("auto") == ("bf16" if told.get("avx_ne_convert") else "fp32")


class Stopped(Exception):
    pass


def test_a_run_loaded_in_bf16_goes_on_exactly(tmp_path: Path) -> None:
    def stop(step: int) -> dict[str, float]:
        raise Stopped

    found = []
    for folder in ("whole", "resumed"):
        options: dict[str, Any] = {"steps": 4, "save_every": 2, "learning_rate": 1e-4}
        for validate in (None,) if folder == "whole" else (stop, None):
            model, processor = tiny()
            model = with_lora(
                model.to(torch.bfloat16),
                **vars(LoraConfig(rank=4)),
                token_ids=control_ids(processor.tokenizer),
            )
            try:
                train(model, processor, tmp_path / folder, validate, eval_every=3, **options)
            except Stopped:
                continue
        found.append(whole_weights(model))
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


# -- rows of tokens beside LoRA matrices ---------------------------------------------------------


def bare(tied: bool) -> tuple[Any, Any]:
    model, processor = tiny()
    if not tied:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 1.5)
        for config in (model.config, model.config.text_config):
            config.tie_word_embeddings = False
    return model, processor


def lora(model: Any, processor: Any) -> Any:
    ids = control_ids(processor.tokenizer)
    assert len(ids) == 3
    return with_lora(model, **vars(LoraConfig(rank=4, alpha=8.0)), token_ids=ids)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_control_tokens_are_trained_saved_and_merged(tmp_path: Path, tied: bool) -> None:
    model, processor = bare(tied)
    ids = control_ids(processor.tokenizer)
    embedding = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    model = lora(model, processor)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sum("trainable_tokens" in name for name in trained) == (1 if tied else 2)
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    folder = tmp_path / "steps"
    train(model, processor, folder, precision="fp32", learning_rate=1e-2, save_every=2)

    save_final(model, processor, tmp_path / "checkpoint", None)
    merged, _ = load(tmp_path / "checkpoint")
    assert (merged.lm_head.weight is merged.get_input_embeddings().weight) == tied
    for before, table in (
        (embedding, merged.get_input_embeddings().weight),
        (head, merged.get_output_embeddings().weight),
    ):
        changed = (table != before).any(dim=1).nonzero().flatten().tolist()
        assert set(changed) <= set(ids)
        assert len(changed) >= 2
    inputs = model_inputs(collate([parts(processor)[0].source.render(0)]))
    model.eval()
    with generating(model) as plain:
        wanted = plain(**inputs).logits
    torch.testing.assert_close(merged.eval()(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)

    # A saved step holds them too, without the tables around them.
    [step] = folder.glob("checkpoint-*")
    saved = load_file(step / "adapter_model.safetensors")
    assert max(tensor.shape[0] for tensor in saved.values()) < len(embedding)
    again = lora(*bare(tied))
    load_weights(again, step)
    for name, tensor in whole_weights(model).items():
        assert torch.equal(whole_weights(again)[name], tensor), name


def test_tokens_in_pieces_have_no_rows() -> None:
    model, processor = tiny()
    known = processor.tokenizer

    class Pieces:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            found: list[int] = known.encode(text[1:], add_special_tokens=add_special_tokens)
            return found

    assert control_ids(Pieces()) == []
    trained = with_lora(model, **vars(LoraConfig(rank=4)), token_ids=control_ids(Pieces()))
    names = [name for name, p in trained.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name for name in names)
