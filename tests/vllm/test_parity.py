"""A saved checkpoint in real vLLM, on the CPU, answers streamed seconds as the engine does.

vLLM lives in an environment of its own: `make vllm-env` makes it in `.venv-vllm`, or
`JOYVL_VLLM_PYTHON` names its interpreter. Without one that test is skipped, or with
`JOYVL_VLLM_REQUIRED` set it fails.
"""

from __future__ import annotations

import base64
import io
import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from joyvl_train import checkpoint
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
from joyvl_train.conversation import messages
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.reply import Reply
from joyvl_train.stream import Stream, StreamSettings

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("JOYVL_VLLM_PYTHON") or ROOT / ".venv-vllm/bin/python")
LIMIT = 12
CLEAR = 0.05  # top two log-probabilities further apart than this must fall alike
SIDE = 64  # a multiple of patch and merge within the processor's bounds: nobody resizes
STREAMS, SECONDS = 3, 25
ASKS = ["", "is it red", "who is there", "count the dogs please"]
SAYS = [Silence(), Response("yes, red"), Delegation("let me see", "who is it"), Response("3")]
# Head sizes of 64 and 32, which vLLM's attention for CPUs has kernels for.
SHAPE = TinyShape(
    vocabulary=512, hidden=128, layers=2, heads=2, kv_heads=1, feed_forward=192, vision_hidden=64,
    vision_layers=2, vision_heads=2, vision_feed_forward=96, deepstack=(0,), side=SIDE,
)  # fmt: skip

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, processor = build_tiny(train_tokenizer([*ASKS, *map(str, SAYS)] * 3, 512), SHAPE, 0)
    taught(Renderer(processor), model)
    folder = tmp_path_factory.mktemp("vllm") / "checkpoint"
    checkpoint.save(model, processor, folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    model, processor = checkpoint.load(folder, dtype=torch.float32)
    return Engine(model.eval(), Renderer(processor), max_new_tokens=LIMIT, details=True)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The base URL of a running vLLM that serves `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder), "--served-model-name", "tiny", "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *("--limit-mm-per-prompt", '{"image": 200, "video": 0}', "--max-model-len", "8192"),
    ]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PYTHONPATH", None)  # the training environment's packages are not vLLM's
    log = folder.parent / "vllm.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder.parent
        )
    try:
        deadline = time.monotonic() + 400
        while not _healthy(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start:\n{log.read_text()[-4000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


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


@pytest.mark.skipif(
    not PYTHON.exists() and not os.environ.get("JOYVL_VLLM_REQUIRED"),
    reason=f"no vLLM: {PYTHON} is not there (run `make vllm-env`)",
)
def test_streamed_seconds_fall_alike(engine: Engine, server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    rng = random.Random(3)
    settings = StreamSettings(chunk_seconds=12, lead=3)
    streams = [Stream(settings) for _ in range(STREAMS)]
    handles = [engine.open(stream) for stream in streams]
    kinds: set[type] = set()
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
    assert prefix_hits(server) > 0.5


def prefix_hits(server: str) -> float:
    """Share of the prompt tokens that vLLM found in its prefix cache."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    totals = {}
    for line in lines:
        for name in ("hits", "queries"):
            if line.startswith(f"vllm:prefix_cache_{name}_total"):
                totals[name] = float(line.rsplit(" ", 1)[1])
    return totals["hits"] / totals["queries"]


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
