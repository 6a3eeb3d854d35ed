"""What a live session is made with: a model, what looks on beside it, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from joyvl_train.heldout import Answer
from joyvl_train.stream import Stream, StreamSettings


class Model(Protocol):
    """What answers a live stream: `serve.in_process.InProcess` or `serve.chat_model.ChatModel`."""

    cache: float | None

    def open(self, stream: Stream, seed: int | None = None) -> int: ...
    def close(self, handle: int) -> None: ...
    def lean(self, handle: int, silence_bias: float) -> None: ...
    def frame(self, image: Image.Image) -> Any: ...
    async def reply(self, handle: int) -> Answer: ...
    async def ask(self, question: str, frames: Sequence[Any]) -> str: ...


class Module(Protocol):
    """Looks at the frames of each tick; what it returns is told to the model with them, "" is not.
    It has until the tick is over (`LiveSettings.module_timeout`); what comes later is told with the
    tick in which it comes, and until then it is not asked again."""

    name: str

    async def look(self, second: int, frames: Sequence[Image.Image]) -> str: ...


Filter = Callable[[str, bool], str]
"""(text, was it asked for) -> the text that may be said; "" for none. The stream's history holds
what was said, so that what is kept back can still be told when it is asked for."""


def unfiltered(text: str, asked: bool) -> str:
    return text


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How a stream is lived. modes: name -> what is added to silence. Times are in seconds.

    side: the longest that the model sees pictures at, of sides that are multiples of `multiple`;
    modules, background tasks and viewers have
    them as the source gives them. step_timeout: how long a second may take the model. waiting:
    queries that may wait for a second with frames. asked_for: seconds after a query for which a
    response counts as asked for, which `say` is told.
    """

    stream: StreamSettings = field(default_factory=StreamSettings)
    side: int | None = None
    multiple: int = 1
    modes: dict[str, float] = field(default_factory=lambda: {"default": 0.0})
    step_timeout: float = 5.0
    module_timeout: float = 0.5
    memory_timeout: float = 60.0
    waiting: int = 16
    snapshot: int = 4
    asked_for: int = 10
    say: Filter = unfiltered
