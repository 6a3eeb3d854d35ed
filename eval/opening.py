"""Systems from plain data, so that any process can open them, and what a transcript hangs on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from eval.handing import HANDING, Overruled
from eval.recorded import read_recorded
from eval.served import Served
from eval.systems import TRIVIAL, Fixed, Streaming, System, TurnBased
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.chunks import Summarize
from joyvl_train.codec import CodecSettings
from joyvl_train.engine import Engine
from joyvl_train.llm import Client, Endpoint
from joyvl_train.memory import Limits, log_summary
from joyvl_train.rendering import Renderer
from joyvl_train.stream import StreamSettings
from serve.chat_engine import ChatEngine
from serve.chat_model import ChatModel
from serve.consolidation import ModelSummary


@dataclass(frozen=True)
class Cutting:
    """How a stream is cut into chunks, what tells of those that are over, and how its frames are
    coded."""

    chunk_seconds: int = 100
    lead: int = 10
    limits: Limits = field(default_factory=Limits)
    summaries: Literal["said", "model"] = "said"
    codec: CodecSettings | None = None

    @property
    def settings(self) -> StreamSettings:
        return StreamSettings(self.chunk_seconds, self.lead, self.limits, codec=self.codec)


@dataclass(frozen=True)
class Spec:
    """One system. name: as reports and folders call it. checkpoint: of `stream`, `poller` and
    `ask_only`. period: of a poller, seconds. path: of `recorded`. `text`: of a trivial policy,
    whose name is one of `TRIVIAL`. url and model: of an `endpoint`; of a `served` one model is its
    server's address. raw: it is asked for control tokens as they are; cache: folder of its answers,
    which `namespace` keeps apart; timeout, retries, max_tokens: as of `llm.Client`. handing: of a
    `stream`, the name in `HANDING` of what overrules the model in handing over."""

    name: str
    kind: Literal["stream", "poller", "ask_only", "trivial", "recorded", "endpoint", "served"]
    checkpoint: str = ""
    path: str = ""
    text: str = ""
    period: int = 5
    bias: float = 0.0
    max_new_tokens: int = 48
    temperature: float = 0.0
    system: str = ""
    min_pixels: int = 0
    max_pixels: int = 0
    url: str = ""
    model: str = ""
    key_variable: str = "OPENAI_API_KEY"
    raw: bool = False
    cache: str = ""
    namespace: str = ""
    timeout: float = 120.0
    retries: int = 5
    max_tokens: int = 0
    handing: str = ""
    cutting: Cutting = field(default_factory=Cutting)

    @property
    def key(self) -> str:
        """A hash of all that its transcripts hang on, the weights among it."""
        apart = ("name", "checkpoint", "path", "cache", "key_variable", "url")
        apart += ("timeout", "retries", "max_tokens")
        told = {k: v for k, v in asdict(self).items() if k not in apart}
        files = [self.checkpoint, self.path]
        parts = [json.dumps(told, sort_keys=True), *(content_key(f) for f in files if f)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content_key(path: str | Path) -> str:
    """A hash of a file, or of the files of a folder with their names; of what is on no disk, its
    name."""
    path = Path(path)
    if not path.exists():
        return str(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def open_system(spec: Spec) -> System:
    """The system; models are loaded once a process. Raises `CheckpointError` or `CaseError`."""
    if spec.kind == "trivial":
        return Fixed(spec.name, spec.text, TRIVIAL[spec.name])
    if spec.kind == "recorded":
        return read_recorded(spec.path, spec.name)
    if spec.kind == "served":
        return _served(spec)
    if spec.kind == "endpoint":
        remote = _endpoint(spec)
        said = partial(log_summary, chars=spec.cutting.limits.told_chars)
        return Streaming(spec.name, remote, spec.cutting.settings, said)
    engine = _engine(spec)
    if spec.kind == "stream":
        chars = spec.cutting.limits.told_chars
        summarize: Summarize = partial(log_summary, chars=chars)
        if spec.cutting.summaries == "model":
            summarize = ModelSummary(engine, chars=chars)
        streamer = Overruled(engine, HANDING[spec.handing]) if spec.handing else engine
        return Streaming(spec.name, streamer, spec.cutting.settings, summarize)
    period = spec.period if spec.kind == "poller" else None
    return TurnBased(spec.name, engine, period=period)


def _engine(spec: Spec) -> Engine:
    model, renderer = _model(spec.checkpoint, spec.min_pixels, spec.max_pixels)
    return Engine(
        model,
        renderer,
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        silence_bias=spec.bias if spec.kind == "stream" else 0.0,
        system=spec.system,
    )


@lru_cache(maxsize=2)
def _served(spec: Spec) -> Served:
    token = os.environ.get(spec.key_variable, "")
    return Served(spec.name, spec.model, token, spec.timeout)


@lru_cache(maxsize=2)
def _endpoint(spec: Spec) -> ChatEngine:
    client = Client(
        Endpoint(spec.url, spec.model, spec.key_variable),
        cache=Path(spec.cache).absolute() if spec.cache else None,
        namespace=spec.namespace,
        timeout=spec.timeout,
        retries=spec.retries,
        max_tokens=spec.max_tokens or None,
    )
    model = ChatModel(
        client,
        system=spec.system,
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        raw=spec.raw,
        strict=True,
    )
    return ChatEngine(model)


@lru_cache(maxsize=2)
def _model(checkpoint: str, min_pixels: int, max_pixels: int) -> tuple[object, Renderer]:
    model, processor = load_for_inference(checkpoint, min_pixels=min_pixels, max_pixels=max_pixels)
    return model, Renderer(processor)
