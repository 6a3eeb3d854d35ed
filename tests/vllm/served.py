"""A small checkpoint that keeps the grammar, and what runs real vLLM on the CPU.

vLLM lives in an environment of its own: `make vllm-env` makes it in `.venv-vllm`, or
`JOYVL_VLLM_PYTHON` names its interpreter. Without one such tests are skipped, or with
`JOYVL_VLLM_REQUIRED` set they fail.
"""

from __future__ import annotations

import os
import random
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.checkpoint import TinyShape
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("JOYVL_VLLM_PYTHON") or ROOT / ".venv-vllm/bin/python")
SIDE = 64  # a multiple of patch and merge within the processor's bounds: nobody resizes
ASKS = ["", "is it red", "who is there", "count the dogs please"]
SAYS = [Silence(), Response("yes, red"), Delegation("let me see", "who is it"), Response("3")]
# Head sizes of 64 and 32, which vLLM's attention for CPUs has kernels for.
SHAPE = TinyShape(
    vocabulary=512, hidden=128, layers=2, heads=2, kv_heads=1, feed_forward=192, vision_hidden=64,
    vision_layers=2, vision_heads=2, vision_feed_forward=96, deepstack=(0,), side=SIDE,
)  # fmt: skip

needs_vllm = pytest.mark.skipif(
    not PYTHON.exists() and not os.environ.get("JOYVL_VLLM_REQUIRED"),
    reason=f"no vLLM: {PYTHON} is not there (run `make vllm-env`)",
)


def picture(rng: random.Random) -> Image.Image:
    return Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(SIDE * SIDE * 3))


def taught(renderer: Renderer, model: Any, steps: int = 120) -> Any:
    """A few steps on streams, so that replies keep the grammar and depend on what is asked."""
    rng = random.Random(0)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        stream = Stream()
        for second in range(6):
            kind = rng.choice([0, 0, 1, 2, 3])
            stream.observe(second, [picture(rng)], [ASKS[kind]] if kind else [])
            stream.act(SAYS[kind])
        sample = renderer.render("", stream.turns)
        ids = torch.tensor([sample.ids])
        labels = torch.full_like(ids, -100)
        for span in sample.spans:
            if span.role == "assistant":
                labels[0, span.start : span.stop] = ids[0, span.start : span.stop]
        types = (ids == renderer.processor.image_id).int()
        model(
            input_ids=ids, labels=labels, mm_token_type_ids=types, **sample.images
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def healthy(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
