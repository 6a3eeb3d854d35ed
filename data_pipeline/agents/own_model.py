"""A checkpoint of ours as an endpoint: the in-process engine behind its OpenAI-compatible face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.agents.asking import wait_for
from joyvl_train.chat_server import ChatServer, Limits
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.engine import Engine
from joyvl_train.llm import Endpoint
from joyvl_train.rendering import Renderer

KEY_VARIABLE = "JOYVL_OWN_KEY"
"""Needs no value: the server listens on this machine alone."""


@contextmanager
def served(checkpoint: Path | Engine, *, batch: int = 16, queue: int = 256) -> Iterator[Endpoint]:
    """The checkpoint of a folder, or an engine that nothing else uses meanwhile, at an endpoint on
    this machine, as long as the context lasts. It answers over HTTP like any other."""
    engine = checkpoint if isinstance(checkpoint, Engine) else _engine(checkpoint)
    server = ChatServer(engine, limits=Limits(batch=batch, queue=queue))
    wait_for(server.start())
    try:
        yield Endpoint(server.url, server.model, KEY_VARIABLE)
    finally:
        wait_for(server.stop())


def _engine(folder: Path) -> Engine:
    model, processor = load_for_inference(folder)
    return Engine(model, Renderer(processor))
