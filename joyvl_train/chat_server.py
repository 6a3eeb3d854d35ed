"""The engine behind an OpenAI-compatible HTTP face: verifier, judge, summarizer on a laptop.

`POST /v1/chat/completions`, `GET /v1/models`, `GET /health`. Images come as data URLs; nothing is
ever fetched, from the network or from disk. Differences from the published API, all deliberate:

- The temperature is 0 where none is given.
- `skip_special_tokens` (true by default, as in vLLM) leaves the control tokens of the grammar out
  of the text. With false the reply is the model's text as it is.
- `response_format` is a wish: where the reply holds JSON that fits, that JSON alone is returned;
  where not, the reply is returned as it is, and the caller's own check decides.
- `stream` sends the whole reply as one event. What is not supported (`n` above 1, `tools`,
  `logprobs`) is refused, never ignored.

Requests wait in a bounded queue; one thread takes them from it, many at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import io
import ipaddress
import json
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import jsonschema
from aiohttp import web
from jinja2 import TemplateError
from PIL import Image
from referencing import Registry
from referencing.exceptions import Unresolvable

from joyvl_train.actions import CONTROL_TOKENS
from joyvl_train.engine import Engine
from joyvl_train.reply import Reply
from joyvl_train.sampling import Sampling

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may ask for. `batch` requests are generated
    together; beyond that `queue` more may wait. Pixels are those of one image."""

    body_bytes: int = 64 * 2**20
    messages: int = 1000
    images: int = 256
    pixels: int = 4_000_000
    max_tokens: int = 2048
    default_tokens: int = 256
    batch: int = 16
    queue: int = 64


class RequestError(ValueError):
    """A request that can't be answered, in the API's own terms."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status

    def response(self) -> web.Response:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}
        error = {
            "message": str(self),
            "type": kinds.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        headers = {"Retry-After": "1"} if self.status == 429 else None
        return web.json_response({"error": error}, status=self.status, headers=headers)


@dataclass(slots=True)
class _Job:
    """One checked request on its way through the queue."""

    messages: list[dict[str, Any]]
    pictures: list[str]  # data URLs, in order
    sampling: Sampling
    seed: int
    stop: tuple[str, ...]
    schema: Mapping[str, Any] | None
    plain: bool
    stream: bool
    done: asyncio.Future[Reply] = field(default_factory=asyncio.Future)


class ChatServer:
    """Serves one engine, which nothing else may use meanwhile.

    Listens on `host`:`port` (0: any free port; `url` tells). `token` is asked of every request but
    `/health`; a host beyond loopback must have one.
    """

    def __init__(
        self,
        engine: Engine,
        model: str = "joyvl",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not token and not _is_loopback(host):
            raise ValueError(f"a token is needed to listen on {host!r}, beyond this machine")
        self.engine, self.model, self.host, self.port = engine, model, host, port
        self.limits = limits or Limits()
        self._token = token
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(self.limits.queue)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._runner: web.AppRunner | None = None
        self._worker: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL that clients are given."""
        assert self._runner is not None, "the server is not running"
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, until `stop`."""
        app = web.Application(client_max_size=self.limits.body_bytes, middlewares=[self._guard])
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self._worker = asyncio.create_task(self._work())
        await web.TCPSite(self._runner, self.host, self.port).start()

    async def stop(self) -> None:
        """Stop listening; what is being generated is finished first."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        while not self._queue.empty():
            self._queue.get_nowait().done.cancel()
        self._thread.shutdown()
        if self._runner is not None:
            await self._runner.cleanup()

    # Requests

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if self._token and request.path != "/health":
                given = request.headers.get("Authorization", "").removeprefix("Bearer ")
                if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
                    raise RequestError("a wrong token, or none", code="invalid_api_key", status=401)
            response: web.StreamResponse = await handler(request)
            return response
        except RequestError as error:
            return error.response()
        except web.HTTPException as error:
            return RequestError(error.reason, status=error.status).response()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "queued": self._queue.qsize()})

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "joyvl"}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        # A page in a browser can't send this type to another site without being asked first.
        if request.content_type != "application/json":
            raise RequestError("the body must be application/json", status=415)
        try:
            body = json.loads(await request.text())
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is no JSON: {error}") from error
        job = self._read(body)
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            raise RequestError(
                f"{self.limits.queue} requests are waiting already", status=429
            ) from None
        await asyncio.wait([job.done])
        if job.done.cancelled():
            raise RequestError("the server is stopping", status=503)
        failure = job.done.exception()
        if isinstance(failure, RequestError):
            raise failure
        if failure is not None:
            request.app.logger.error("a batch failed", exc_info=failure)
            raise RequestError(f"{type(failure).__name__} while generating", status=500)
        return await self._answer(request, job, job.done.result())

    def _read(self, body: Any) -> _Job:
        """The checked request; `RequestError` names what is wrong with it."""
        if not isinstance(body, dict):
            raise RequestError("the body is no JSON object")
        if body.get("model") not in (None, self.model):
            message = f"there is no model {body['model']!r}, only {self.model!r}"
            raise RequestError(message, "model", "model_not_found", 404)
        for name in ("tools", "functions", "logprobs", "audio"):
            if body.get(name):
                raise RequestError(f"{name} is not supported", name)
        if body.get("n") not in (None, 1):
            raise RequestError(f"n is {body['n']!r}, and only 1 is supported", "n")
        messages, pictures = self._read_messages(body.get("messages"))
        limits = self.limits
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        tokens = _number(asked, "max_tokens", limits.default_tokens, 1, limits.max_tokens)
        sampling = Sampling(
            int(tokens),
            _number(body.get("temperature"), "temperature", 0.0, 0.0, 5.0),
            max(_number(body.get("top_p"), "top_p", 1.0, 0.0, 1.0), 1e-6),
        )
        stop = body.get("stop") or ()
        stop = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) and s for s in stop):
            raise RequestError("stop is a text or a list of texts", "stop")
        return _Job(
            messages=messages,
            pictures=pictures,
            sampling=sampling,
            seed=int(_number(body.get("seed"), "seed", 0, -(2**62), 2**62)),
            stop=tuple(stop),
            schema=_schema(body.get("response_format")),
            plain=body.get("skip_special_tokens", True) is not False,
            stream=body.get("stream") is True,
        )

    def _read_messages(self, given: Any) -> tuple[list[dict[str, Any]], list[str]]:
        limits = self.limits
        if not isinstance(given, list) or not given:
            raise RequestError("messages must be a list that is not empty", "messages")
        if len(given) > limits.messages:
            raise RequestError(f"{len(given)} messages, at most {limits.messages}", "messages")
        messages: list[dict[str, Any]] = []
        pictures: list[str] = []
        for index, message in enumerate(given):
            where = f"messages[{index}]"
            role = message.get("role") if isinstance(message, dict) else None
            if role not in ROLES:
                raise RequestError(f"{where}: the role is one of {', '.join(ROLES)}", where)
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if not isinstance(parts, list):
                raise RequestError(f"{where}: the content is a text or a list of parts", where)
            read = []
            for part in parts:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind == "text" and isinstance(part.get("text"), str):
                    read.append({"type": "text", "text": self._safe(part["text"], role)})
                elif kind == "image_url" and role == "user":
                    pictures.append(_data_url(part.get("image_url"), where))
                    read.append({"type": "image"})
                else:
                    raise RequestError(f"{where}: a part of type {kind!r} can't be read", where)
            messages.append({"role": role, "content": read})
        if messages[-1]["role"] == "assistant":
            raise RequestError("the last message is the assistant's: nothing to answer", "messages")
        if len(pictures) > limits.images:
            raise RequestError(f"{len(pictures)} images, at most {limits.images}", "messages")
        return messages, pictures

    def _safe(self, text: str, role: str) -> str:
        """Text from outside forms no special token; the assistant's own may hold its grammar."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        for special in self.engine.renderer.processor.specials:
            if special in text and not (role == "assistant" and special in CONTROL_TOKENS):
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text

    async def _answer(self, request: web.Request, job: _Job, reply: Reply) -> web.StreamResponse:
        text = _content(reply.text, job)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.model,
        }
        reason = "length" if reply.truncated else "stop"
        usage = {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": len(reply.tokens),
            "total_tokens": reply.prompt_tokens + len(reply.tokens),
        }
        message = {"role": "assistant", "content": text}
        if not job.stream:
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            return web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, finish in ((message, None), ({}, reason)):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            event = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            if finish:
                event["usage"] = usage
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    # The engine's thread

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = [await self._queue.get()]
            while len(jobs) < self.limits.batch and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            running = loop.run_in_executor(self._thread, self._generate, jobs)
            # Whatever fails in there belongs to the requests of this batch, not to the server.
            await asyncio.wait([running])
            error = running.exception()
            results = running.result() if error is None else [error] * len(jobs)
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, BaseException):
                    job.done.set_exception(result)
                else:
                    job.done.set_result(result)

    def _generate(self, jobs: list[_Job]) -> list[Reply | RequestError]:
        """A reply or an error for each job, in order; runs in the engine's thread."""
        results: dict[int, Reply | RequestError] = {}
        prompts = {}
        longest = self.engine.model.config.get_text_config().max_position_embeddings
        for index, job in enumerate(jobs):
            try:
                frames = [_picture(url, self.limits.pixels) for url in job.pictures]
                text = self.engine.renderer.processor.chat(job.messages, True)
                prompt = self.engine.prompt(text, frames)
                room = longest - len(prompt.ids) - job.sampling.max_new_tokens
                if room < 0:
                    message = (
                        f"{len(prompt.ids)} prompt tokens and {job.sampling.max_new_tokens} more "
                        f"are above the model's {longest}"
                    )
                    raise RequestError(message, "messages", "context_length_exceeded")
                prompts[index] = prompt
            except RequestError as error:
                results[index] = error
            except (ValueError, TemplateError) as error:
                results[index] = RequestError(f"the messages can't be rendered: {error}")
        replies = self.engine.generate_batch(
            list(prompts.values()),
            sampling=[jobs[i].sampling for i in prompts],
            seeds=[jobs[i].seed for i in prompts],
            batch=self.limits.batch,
        )
        results.update(zip(prompts, replies, strict=True))
        return [results[index] for index in range(len(jobs))]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _number(value: Any, name: str, default: float, low: float, high: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} is a number from {low} to {high}, not {value!r}", name)
    return value


def _data_url(image: Any, where: str) -> str:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url.startswith("data:image/") or ";base64," not in url:
        raise RequestError(f"{where}: images come as data:image/...;base64 URLs only", where)
    return url


def _picture(url: str, pixels: int) -> Image.Image:
    try:
        data = base64.b64decode(url.partition(";base64,")[2], validate=True)
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        width, height = image.size
        if width * height > pixels:
            raise RequestError(f"an image of {width}x{height}, at most {pixels} pixels", "messages")
        return image.convert("RGB")
    except (OSError, binascii.Error, SyntaxError) as error:  # Pillow raises both for broken files
        raise RequestError(f"an image can't be read: {error}", "messages") from error


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    """The JSON schema of a `response_format`; an empty one takes any JSON."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    schema = schema.get("schema") if isinstance(schema, dict) else None
    try:
        jsonschema.Draft202012Validator.check_schema(schema)  # type: ignore[arg-type]
    except jsonschema.SchemaError as error:
        message = f"response_format is not readable: {error.message[:200]}"
        raise RequestError(message, "response_format") from error
    assert isinstance(schema, dict | bool)
    return schema if isinstance(schema, dict) else {}


def _content(text: str, job: _Job) -> str:
    if job.plain:
        for token in CONTROL_TOKENS:
            text = text.replace(token, "")
        text = text.strip()
    for stop in job.stop:
        text = text.partition(stop)[0]
    if job.schema is not None:
        start, end = text.find("{"), text.rfind("}")
        body = text[start : end + 1] if 0 <= start < end else text
        # A registry of its own, because the default one fetches what a schema refers to.
        check = jsonschema.Draft202012Validator(job.schema, registry=Registry())
        try:
            check.validate(json.loads(body))
        except (ValueError, RecursionError, jsonschema.ValidationError, Unresolvable):
            return text
        return body
    return text
