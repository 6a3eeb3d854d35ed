"""The keys of how streams are cut, and of how their frames are coded."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key

_CHUNK = 100
_SUMMARY_CHARS = 1200
_DIALOGUE_TOKENS = 400
LEAST_CHARS = 64
"""The fewest characters of a block that say something."""
_AS_TRAINED = "as the checkpoint was trained with where one is tuned, evaluated on cases or served"


@dataclass
class StreamConfig:
    chunk_seconds: int = _key(
        0,
        f"seconds after which a prompt starts anew; 0: {_CHUNK}, but as many {_AS_TRAINED}",
        low=0,
        high=86_400,
    )
    lead: int = _key(10, "seconds of turns that the next chunk opens with", low=1, high=3_600)
    mid: int = _key(5, "summaries that become one long-term block", low=1, high=1_000)
    long: int = _key(15, "long-term blocks kept", low=0, high=1_000)
    summary_chars: int = _key(
        0,
        "characters of a long-term block, and of a summary that a record brings; one that a stream "
        f"makes itself has at most 1000, whatever this says; 0: {_SUMMARY_CHARS}, but as many "
        f"{_AS_TRAINED}",
        low=0,
        high=10**6,
    )
    pinned: int = _key(8, "standing instructions kept", low=0, high=1_000)
    pinned_chars: int = _key(600, "characters of the standing instructions", low=16, high=10**6)
    dialogue_tokens: int = _key(
        -1,
        f"tokens of other dialogue kept; -1: {_DIALOGUE_TOKENS}, but as many {_AS_TRAINED}",
        low=-1,
        high=10**6,
    )

    @property
    def chunk(self) -> int:
        """`chunk_seconds`, or what stands for it where nothing was said."""
        return self.chunk_seconds or _CHUNK


def in_force(stream: StreamConfig) -> dict[str, int]:
    """The keys that a checkpoint brings where nothing is said of them, each with what holds until
    it does."""
    said = stream.dialogue_tokens >= 0
    return {
        "chunk_seconds": stream.chunk,
        "summary_chars": stream.summary_chars or _SUMMARY_CHARS,
        "dialogue_tokens": stream.dialogue_tokens if said else _DIALOGUE_TOKENS,
    }


@dataclass
class CodecConfig:
    block: int = _key(
        32, "side of a block of a frame in pixels: patch size times merge", low=8, high=64
    )
    search: int = _key(64, "pixels to each side in which a block is looked for", low=8, high=512)
    cut: float = _key(14.0, "grey levels of cost above which a frame is whole", low=0.1, high=255)
    drift: float = _key(
        36.0, "grey levels that the costs since the last whole one may add up to", low=0.1, high=1e6
    )
    gap: int = _key(2, "frames after a whole one before these are looked at", low=1, high=10**6)
    longest: int = _key(30, "frames after which one is whole, at most", low=1, high=10**6)
    side: int = _key(
        64, "side in pixels of the picture that shows a change; 128: 16 tokens", low=8, high=1024
    )
