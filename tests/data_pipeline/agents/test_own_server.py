"""An agent whose model is our own engine behind its HTTP face."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from data_pipeline.agents.asking import each_asked, wait_for
from data_pipeline.candidates import Candidate, id_of
from joyvl_train.chat_server import ChatServer
from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from joyvl_train.timeline import Clip, Timeline
from tests.data_pipeline.agents.endpoint import Asked

SHAPE = TinyShape(
    vocabulary=400, hidden=32, layers=1, heads=2, kv_heads=1, feed_forward=48, vision_hidden=32,
    vision_layers=1, vision_heads=2, vision_feed_forward=32, deepstack=(0,), side=64,
    positions=8192,
)  # fmt: skip


@pytest.fixture
def engine(one_thread: None) -> Engine:
    model, processor = build_tiny(train_tokenizer(["what is it"] * 3, 400), SHAPE, 0)
    return Engine(model.eval(), Renderer(processor), max_new_tokens=8)


def test_a_model_that_can_say_nothing_admits_nothing(engine: Engine) -> None:
    """A random model: its server takes the prompts, and what it says is kept apart."""
    given = [
        Candidate(id_of(n), Timeline(Clip(f"v{n}", 9.0, video="a.mp4"), "alerting", "made", ()))
        for n in range(3)
    ]
    pictures = [(second, Image.new("RGB", (64, 48), (9 * second, 0, 0))) for second in range(4)]

    async def look(candidate: Candidate) -> Candidate:
        verdict = await agent.judge({"second": 2, "text": candidate.id}, pictures)
        return candidate.kept("look", verdict.reason)

    server = ChatServer(engine)
    wait_for(server.start())
    try:
        with Asked(server.url, "grounding_checker", max_tokens=8, reparses=1) as agent:
            out = list(each_asked("look", look, given, 3))
    finally:
        wait_for(server.stop())
    assert [one.reason for one in out] == ["unparsed"] * 3
    counts: dict[str, Any] = agent.counts()
    assert (counts["asked"], counts["calls"], counts["failed"]) == (3, 6, 0)
    assert counts["tokens"] > 6 * 100 and torch.get_num_threads() == 1
