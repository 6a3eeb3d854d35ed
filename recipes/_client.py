"""The client that a config's `agents` describe."""

from __future__ import annotations

from pathlib import Path

from joyvl_train.corpus_config import AgentsConfig
from joyvl_train.llm import Client, Endpoint


def client_of(
    agents: AgentsConfig, *, max_cost: float | None = None, max_tokens: int | None = None
) -> Client:
    """Asks the model at `agents.url`; the caps are those given, None for none."""
    prices = (agents.prompt_price, agents.completion_price)
    endpoint = Endpoint(agents.url, agents.model, agents.key_variable, *prices)
    return Client(
        endpoint,
        cache=Path(agents.cache).absolute() if agents.cache else None,
        namespace=agents.namespace,
        concurrency=agents.concurrency,
        per_minute=agents.per_minute or None,
        timeout=agents.timeout,
        retries=agents.retries,
        reparses=agents.reparses,
        max_cost=max_cost,
        max_tokens=max_tokens,
    )
