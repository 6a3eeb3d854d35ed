"""A model's weights in and out: saved steps, LoRA merged in, parts gathered from the ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from joyvl_train.checkpoint import Processor, save
from joyvl_train.ranks import is_first, wait_for_all


def plain_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def load_weights(model: Any, folder: Path) -> None:
    """Load a saved step's weights, or its LoRA matrices, into `model`; `ValueError` on a misfit."""
    from safetensors.torch import load_file

    if hasattr(model, "get_base_model"):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(load_file(file))
    own = dict(model.named_parameters(remove_duplicate=False))
    tied = {name for name, p in own.items() for n, q in own.items() if p is q and n in state}
    missing = set(own) - set(state) - tied
    unexpected = set(state) - set(model.state_dict())
    if missing or unexpected:
        raise ValueError(f"{folder} does not fit the model: {sorted(missing | unexpected)[:3]}")
    with torch.no_grad():
        for name, values in state.items():
            target = model.get_parameter(name) if name in own else model.get_buffer(name)
            with _gathered(target, modified=True):
                target.copy_(values)


def whole_weights(model: Any) -> dict[str, Tensor]:
    """The weights of `model` by name, on the CPU, gathered where ranks hold parts of them.

    LoRA matrices come merged in, W + (alpha / rank) B A; trained rows of tokens take their places.
    All ranks call it; the first gets them.
    """
    state: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}  # tied weights stay one tensor, and are written once
    plain = plain_model(model)
    for name, tensor in plain.state_dict(keep_vars=True).items():
        with _gathered(tensor):
            if is_first():
                if id(tensor) not in copies:
                    copies[id(tensor)] = tensor.detach().cpu().clone()
                state[name] = copies[id(tensor)]
    merged: dict[str, Tensor] = {}
    tables: dict[int, Tensor] = {}
    for name, tensor in state.items():
        layer, found, kind = name.partition(".base_layer.")
        table, of_tokens, _ = layer.partition(".token_adapter")
        if ".trainable_tokens_" in name:
            continue
        if of_tokens:
            if id(tensor) not in tables:
                ids = plain.get_submodule(layer).token_indices["default"]
                tables[id(tensor)] = tensor.clone()
                rows = state[f"{layer}.trainable_tokens_delta.default"]
                tables[id(tensor)][ids] = rows.to(tensor.dtype)
            merged[f"{table}.{kind}"] = tables[id(tensor)]
        elif found:
            if kind == "weight":
                a, b = (state[f"{layer}.lora_{m}.default.weight"].float() for m in "AB")
                scale = plain.get_submodule(layer).scaling["default"]
                tensor = (tensor.float() + scale * (b @ a)).to(tensor.dtype)
            merged[f"{layer}.{kind}"] = tensor
        elif ".lora_" not in name:
            merged[name] = tensor
    return merged


def _in_type(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The floating tensors in `dtype`; one that stands under two names stays one."""
    if dtype is None:
        return state
    found = {id(t): t.to(dtype) if t.is_floating_point() else t for t in state.values()}
    return {name: found[id(tensor)] for name, tensor in state.items()}


@contextmanager
def _gathered(tensor: Any, modified: bool = False) -> Iterator[None]:
    """`tensor` whole for a while, where ZeRO-3 holds parts of it on every rank."""
    if not hasattr(tensor, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([tensor], modifier_rank=0 if modified else None):
        yield


def save_final(
    model: Any,
    processor: Processor,
    folder: Path,
    source: str | Path | None,
    dtype: torch.dtype | None = None,
) -> None:
    """The run's `checkpoint/`: LoRA merged in, loadable by transformers and vLLM as it is.

    dtype: the type that weights are written in, whatever they were trained in; None: as they are.
    All ranks call it, the first writes; it is there when the call returns.
    """
    state = whole_weights(model)
    if is_first():
        plain = plain_model(model)

        def write(to: Path) -> None:
            plain.save_pretrained(to, state_dict=_in_type(state, dtype))
            if dtype is not None:
                config = json.loads((to / "config.json").read_text())
                config["dtype"] = str(dtype).removeprefix("torch.")
                (to / "config.json").write_text(json.dumps(config, indent=2) + "\n")

        save(SimpleNamespace(save_pretrained=write), processor, folder, source=source)
    wait_for_all()
