"""A saved checkpoint in real vLLM, on the CPU, answers streamed seconds as the engine does."""

from __future__ import annotations

import base64
import io
import random
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from joyvl_train import checkpoint
from joyvl_train.actions import Response, Silence
from joyvl_train.conversation import messages
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.reply import Reply
from joyvl_train.stream import Stream, StreamSettings
from tests.vllm.served import ASKS, needs_vllm, picture

LIMIT = 12
CLEAR = 0.05  # top two log-probabilities further apart than this must fall alike
STREAMS, SECONDS = 3, 25

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    model, processor = checkpoint.load(folder, dtype=torch.float32)
    return Engine(model.eval(), Renderer(processor), max_new_tokens=LIMIT, details=True)


def chat(stream: Stream) -> list[dict[str, Any]]:
    """The stream's prompt as Chat Completions messages; PNG, so that no pixel changes."""
    frames = iter([frame for turn in stream.turns for frame in turn.frames])
    wire = []
    for message in messages(stream.memory_text, stream.turns):
        content = message["content"]
        if isinstance(content, list):
            content = [p if p["type"] == "text" else image_url(next(frames)) for p in content]
        wire.append({"role": message["role"], "content": content})
    return wire


def image_url(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def ask(client: openai.OpenAI, stream: Stream) -> tuple[int, list[int], list[float]]:
    """vLLM's prompt length, its tokens, and how far apart the best two were at each."""
    completion = client.chat.completions.create(
        model="tiny",
        messages=chat(stream),  # type: ignore[arg-type]
        temperature=0.0,
        max_tokens=LIMIT,
        logprobs=True,
        top_logprobs=2,
        extra_body={"skip_special_tokens": False, "return_tokens_as_token_ids": True},
    )
    details = completion.choices[0].logprobs
    assert details is not None and details.content is not None and completion.usage is not None
    tokens = [int(item.token.removeprefix("token_id:")) for item in details.content]
    gaps = []
    for item in details.content:
        best = sorted((top.logprob for top in item.top_logprobs), reverse=True)
        gaps.append(best[0] - best[1])
    return completion.usage.prompt_tokens, tokens, gaps


def parted(reply: Reply, tokens: list[int], stops: tuple[int, ...]) -> int | None:
    """Where the two token sequences part; None where they are equal."""
    ours = [t for t in reply.tokens if t not in stops]
    theirs = [t for t in tokens if t not in stops]
    if ours == theirs:
        return None
    same = [a == b for a, b in zip(ours, theirs, strict=False)]
    return same.index(False) if False in same else len(same)


@needs_vllm
def test_streamed_seconds_fall_alike(engine: Engine, server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    rng = random.Random(3)
    settings = StreamSettings(chunk_seconds=12, lead=3)
    streams = [Stream(settings) for _ in range(STREAMS)]
    handles = [engine.open(stream) for stream in streams]
    kinds: set[type] = set()
    before = prefix_tokens(server)
    compared = disagreed = 0
    for second in range(SECONDS):
        for stream in streams:
            question = rng.choice(ASKS) if rng.random() < 0.5 else ""
            stream.observe(second, [picture(rng)], [question] if question else [])
        for stream, reply in zip(streams, engine.step(handles), strict=True):
            prompt_tokens, tokens, gaps = ask(client, stream)
            assert prompt_tokens == reply.prompt_tokens
            compared += 1
            place = parted(reply, tokens, engine.renderer.stop_ids)
            if place is not None:
                gap = min(gaps[place : place + 1] + list(reply.gaps[place : place + 1]))
                assert gap <= CLEAR, (second, reply, tokens, gaps)
                disagreed += 1
            kinds.add(type(reply.action))
            stream.act(reply.action or Silence())
    assert {Silence, Response} <= kinds, "the model says too little for a comparison"
    # Every one of these lies where the gap is small; more than a few would still be a bug.
    assert disagreed <= compared // 10, f"{disagreed} of {compared} disagree"
    after = prefix_tokens(server)
    hits, asked = (now - then for now, then in zip(after, before, strict=True))
    assert hits / asked > 0.5


def prefix_tokens(server: str) -> tuple[float, float]:
    """Prompt tokens so far that vLLM found in its prefix cache, and all of them."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    totals = {"hits": 0.0, "queries": 0.0}
    for line in lines:
        for name in ("hits", "queries"):
            if line.startswith(f"vllm:prefix_cache_{name}_total"):
                totals[name] = float(line.rsplit(" ", 1)[1])
    return totals["hits"], totals["queries"]


def test_transformers_loads_the_folder_unmodified(engine: Engine, folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    stream = Stream()
    handle = engine.open(stream)
    stream.observe(0, [picture(random.Random(1))], [ASKS[1]])
    (reply,) = engine.step([handle])
    prompt = engine.renderer.render("", stream.turns)
    ids = torch.tensor([prompt.ids])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == engine.renderer.processor.image_id).int(),
        max_new_tokens=LIMIT,
        do_sample=False,
        **prompt.images,
    )
    assert output[0, len(prompt.ids) :].tolist() == list(reply.tokens)
