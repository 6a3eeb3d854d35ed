"""A model behind an OpenAI-compatible endpoint as the engine of sessions that are stepped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from joyvl_train.stream import Stream
from serve.chat_model import ChatModel, ChatReply


class ChatEngine:
    """Steps the streams that `model` follows, all that are stepped together at once.

    Not for use by several threads at once, nor within a running event loop.
    """

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self._runner = asyncio.Runner()

    def open(self, stream: Stream, seed: int | None = None) -> int:
        return self.model.open(stream, seed)

    def close(self, handle: int) -> None:
        self.model.close(handle)

    def step(self, handles: Sequence[int]) -> list[ChatReply]:
        """The replies of streams whose last turn is open. Raises `BudgetError` where a cap is
        reached."""
        return self._runner.run(self._step(handles))

    def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        self._runner.run(self.model.end())
        self._runner.close()

    async def _step(self, handles: Sequence[int]) -> list[ChatReply]:
        return list(await asyncio.gather(*map(self.model.reply, handles)))
