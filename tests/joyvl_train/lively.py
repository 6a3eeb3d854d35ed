"""Small random models with lively outputs, and what `generate` says on the full prompt."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream, StreamSettings
from tests import tiny_training
from tests.tiny_training import WORDS

LIMIT = 10
TIE = 1e-4  # two logits closer than this may swap between two orders of summation
SHAPE = replace(tiny_training.SHAPE, layers=3)


def enliven(model: Any, renderer: Renderer, steps: int = 100) -> Any:
    """A model whose replies are lively: large random weights, so that they depend on all of the
    input with clear winners, then a few steps on streams, so that they mostly keep the grammar."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(noise * 1.3 / weight[0].numel() ** 0.5)
        table = model.get_output_embeddings().weight
        table.copy_(torch.randn(table.shape, generator=generator) * 0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = random.Random(0)
    says = {0: Silence(), 1: Response("fire now"), 2: Delegation("wait", "how many seconds")}
    for _ in range(steps):
        stream = Stream(StreamSettings(chunk_seconds=8, lead=2))
        for second in range(6):
            kind = rng.choice([0, 0, 1, 2])
            stream.observe(second, [picture(rng)], [WORDS[kind]] if kind else [])
            stream.act(says[kind])
        sample = renderer.render("", stream.turns)
        ids = torch.tensor([sample.ids])
        labels = torch.full_like(ids, -100)
        for span in sample.spans:
            if span.role == "assistant" and span.kind != "header":
                labels[0, span.start : span.stop] = ids[0, span.start : span.stop]
        inputs = model_inputs(renderer, sample)
        model(input_ids=ids, labels=labels, **inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def model_inputs(renderer: Renderer, rendered: Any) -> dict[str, Any]:
    """What transformers takes beside the ids."""
    if not renderer.processor.mrope:
        return {name: tensor[None] for name, tensor in rendered.images.items()}
    types = (torch.tensor([rendered.ids]) == renderer.processor.image_id).int()
    return {"mm_token_type_ids": types, **rendered.images}


def picture(rng: random.Random) -> Image.Image:
    width, height = rng.choice([(32, 32), (64, 32), (64, 64)])
    return Image.frombytes("RGB", (width, height), rng.randbytes(width * height * 3))


def full_generate(model: Any, renderer: Renderer, stream: Stream, limit: int) -> list[int]:
    """The ids that transformers generates for the open turn, from nothing."""
    prompt = renderer.render(stream.memory_text, stream.turns)
    ids = torch.tensor([prompt.ids])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=list(renderer.stop_ids),
        **model_inputs(renderer, prompt),
    )
    return list(output[0, len(prompt.ids) :].tolist())


def drive(
    model: Any,
    renderer: Renderer,
    streams: int,
    seconds: int,
    seed: int,
    check: bool = True,
    **settings: Any,
) -> tuple[list[Any], Engine]:
    """Ragged streams with dropped seconds, texts, several frames, overruled and malformed replies;
    every reply is compared with a generation from nothing. Returns the replies."""
    rng = random.Random(seed)
    engine = Engine(model, renderer, max_new_tokens=LIMIT, details=True, **settings)
    open_streams = [Stream(StreamSettings(chunk_seconds=8, lead=2)) for _ in range(streams)]
    handles = [engine.open(stream) for stream in open_streams]
    replies = []
    ties = 0
    for second in range(seconds):
        active = [i for i in range(streams) if rng.random() < 0.85]
        for i in active:
            frames = [picture(rng) for _ in range(rng.choice([1, 1, 2]))]
            queries = [rng.choice(WORDS) * rng.randint(1, 4)] if rng.random() < 0.3 else []
            open_streams[i].observe(second, frames, queries)
        if not active:
            continue
        rng.shuffle(active)
        for i, reply in zip(active, engine.step([handles[i] for i in active]), strict=True):
            stream = open_streams[i]
            if check:
                prompt = renderer.render(stream.memory_text, stream.turns)
                assert reply.prompt_tokens == len(prompt.ids)
                reference = full_generate(model, renderer, stream, LIMIT)
                if list(reply.tokens) != reference:
                    assert min(reply.gaps) < TIE, (second, i, reply, reference)
                    ties += 1
            replies.append(reply)
            action = reply.action or Silence()
            if rng.random() < 0.2:
                action = rng.choice([Response("fire now"), Delegation("wait", "how many")])
            stream.act(action)
    assert ties <= len(replies) // 20
    return replies, engine
