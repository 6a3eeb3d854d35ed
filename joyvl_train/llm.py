"""A client for any OpenAI-compatible endpoint: annotators, verifiers, judges, the background model.

One `Client` is one endpoint and model. It bounds what is in flight and what is spent, tries again
where trying helps, keeps every answer on disk under a key made from the request's content (a rerun
pays nothing), and returns an answer that can't be read as the value `Unparsed`, never as a guess.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from PIL import Image

from joyvl_train import llm_wire as wire
from joyvl_train.answer_cache import read_text, without_images, write_entry
from joyvl_train.llm_budget import Budget, BudgetError, LLMError, Refused, Unreachable, Usage, room

if TYPE_CHECKING:
    import openai

__all__ = [
    "Answer",
    "Budget",
    "BudgetError",
    "Client",
    "Endpoint",
    "LLMError",
    "Message",
    "Refused",
    "Schema",
    "Unparsed",
    "Unreachable",
    "Usage",
    "image_part",
    "text_part",
]

Message = Mapping[str, Any]
Schema = Mapping[str, Any]

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers. Prices are per million tokens, in whatever currency the cap is in.

    The key is read from the environment variable `key_variable`; an endpoint on this machine needs
    none.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    prompt_price: float = 0.0
    completion_price: float = 0.0

    @classmethod
    def from_environment(cls, prefix: str = "JOYVL_LLM") -> Self:
        """The endpoint that `<prefix>_URL` and `<prefix>_MODEL` name; key in `<prefix>_KEY`."""
        missing = [n for n in (f"{prefix}_URL", f"{prefix}_MODEL") if not os.environ.get(n)]
        if missing:
            raise LLMError(f"no endpoint: set {' and '.join(missing)} in the environment")
        return cls(os.environ[f"{prefix}_URL"], os.environ[f"{prefix}_MODEL"], f"{prefix}_KEY")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said. `data` is the parsed JSON where a schema was asked for, else None."""

    text: str
    data: Any = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Unparsed:
    """The model answered, after every try, with a text that is not what was asked for."""

    text: str
    reason: str
    cached: bool = False


def image_part(image: Image.Image | bytes, quality: int = 90) -> dict[str, Any]:
    """A message part that shows `image`: a PIL image, or the bytes of a JPEG or PNG file."""
    if isinstance(image, bytes):
        data = image
    else:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
    encoded = base64.b64encode(data).decode("ascii")
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{encoded}"}}


def text_part(text: str) -> dict[str, Any]:
    """A message part of plain text."""
    return {"type": "text", "text": text}


class Client:
    """Asks one model, many questions at a time.

    concurrency: requests in flight at once; per_minute: requests started in a minute (None: no
    limit); timeout: seconds for one try, from its start to the last byte; retries: further tries
    after a connection error, 408, 409, 429, 5xx or what is no completion at all, waiting
    `backoff * 2**n` seconds with some jitter, or as long as the server asks; reparses: further
    questions after an answer that does not fit the schema. max_cost and max_tokens cap what this
    client may spend in its life.

    cache: folder of the answers, kept by the model's name and by what was asked of it, wherever it
    is served. namespace: keeps answers apart that share these, such as those of two models that
    are served under one name.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cache: Path | None = None,
        namespace: str = "",
        concurrency: int = 8,
        per_minute: float | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 1.0,
        reparses: int = 2,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if concurrency < 1 or retries < 0 or reparses < 0:
            raise ValueError(f"bad limits: {concurrency=}, {retries=}, {reparses=}")
        if per_minute is not None and per_minute <= 0:
            raise ValueError(f"per_minute must be above 0, got {per_minute}")
        self.endpoint = endpoint
        self.budget = Budget(None, max_tokens, max_cost, f"model {endpoint.model}")
        self.cache, self.namespace = cache, namespace
        self.retries, self.backoff, self.reparses = retries, backoff, reparses
        self.timeout = timeout
        self._sleep = sleep
        self._flight = asyncio.Semaphore(concurrency)
        self._asking = WeakValueDictionary[Path, asyncio.Lock]()
        self._interval = 0.0 if per_minute is None else 60.0 / per_minute
        self._next_start = 0.0
        self._speaks_schema = True
        import openai  # takes a second or two: who asks nobody is spared them

        self._openai = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=os.environ.get(endpoint.key_variable) or "none",
            timeout=timeout,
            max_retries=0,  # tries are ours, so that they are counted and bounded in one place
            http_client=openai.DefaultAsyncHttpxClient(
                event_hooks={"response": [wire.bound_body]},
                headers={"Accept-Encoding": "identity"},
            ),
        )

    @property
    def usage(self) -> Usage:
        """What was asked and spent so far."""
        return self.budget.usage

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._openai.close()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        schema: Schema | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        sample: int = 0,
        extra: Mapping[str, Any] | None = None,
        ends: Mapping[int, str] | None = None,
        budget: Budget | None = None,
    ) -> Answer | Unparsed:
        """The model's answer to `messages` (Chat Completions form).

        With `schema` (JSON schema) the answer's `data` is valid against it. `sample` numbers draws
        of one request, which would share a cache entry otherwise; it is sent as the seed. `extra`
        are further fields of the request, which the endpoint must know. `ends` are tokens, id ->
        text, with which an answer is complete, for a vLLM. What is asked and spent is counted in
        `budget` too, and held within its caps. Raises `BudgetError` where a cap could be passed,
        and `LLMError` where no answer came.
        """
        budgets = (self.budget,) if budget is None else (self.budget, budget)
        request = {
            "namespace": self.namespace,
            "model": self.endpoint.model,
            "messages": [dict(m) for m in messages],
            "schema": schema,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "sample": sample,
            **({"extra": dict(extra)} if extra else {}),
            **({"ends": dict(ends)} if ends else {}),
        }
        path = self._path(request)
        # Asked twice at one time, it is sent once, and both get one answer.
        async with self._asking.setdefault(path, asyncio.Lock()) if path else nullcontext():
            kept = read_text(path)
            if kept is not None:
                for each in budgets:
                    each.usage.cached += 1
                return _read_answer(kept, schema, cached=True)
            async with self._flight:
                text = await self._answer(request, schema, budgets)
            told = {"url": self.endpoint.url, "request": without_images(request), "text": text}
            text = write_entry(path, told)
        answer = _read_answer(text, schema, cached=False)
        if isinstance(answer, Unparsed):
            for each in budgets:
                each.usage.unparsed += 1
        return answer

    async def ask_all(
        self, questions: Iterable[Sequence[Message]], **settings: Any
    ) -> list[Answer | Unparsed | LLMError]:
        """`ask` for each, in order; what raised `LLMError` stands as that error in its place.

        `BudgetError` is raised once all that was in flight has ended.
        """

        async def one(messages: Sequence[Message]) -> Answer | Unparsed | LLMError:
            try:
                return await self.ask(messages, **settings)
            except LLMError as error:
                return error

        results = await asyncio.gather(*(one(messages) for messages in questions))
        for result in results:
            if isinstance(result, BudgetError):
                raise result
        return list(results)

    async def _answer(
        self, request: Mapping[str, Any], schema: Schema | None, budgets: Sequence[Budget]
    ) -> str:
        """The text to keep: the first that fits, or the last after `reparses` more questions."""
        messages = list(request["messages"])
        text = await self._send(messages, request, schema, budgets)
        for _ in range(self.reparses if schema is not None else 0):
            answer = _read_answer(text, schema, cached=False)
            if isinstance(answer, Answer):
                break
            correction = f"That is not what was asked for ({answer.reason}). Answer with JSON only."
            again = [
                *messages,
                {"role": "assistant", "content": text or "(nothing)"},
                {"role": "user", "content": correction},
            ]
            text = await self._send(again, request, schema, budgets)
        return text

    async def _send(
        self,
        messages: Sequence[Message],
        request: Mapping[str, Any],
        schema: Schema | None,
        budgets: Sequence[Budget],
    ) -> str:
        """One answered request, tried as often as allowed."""
        import openai

        last, failure = "", LLMError
        prompt = wire.prompt_bound(messages)
        bound = prompt + request["max_tokens"], self._price(prompt, request["max_tokens"])
        attempt = 0
        while attempt <= self.retries:
            await room(budgets, *bound)
            for budget in budgets:
                budget.hold(*bound)
            wait = self.backoff * 2**attempt * random.uniform(0.75, 1.25)
            failure = LLMError
            enforced = schema is not None and self._speaks_schema
            try:
                done = await self._try(messages, request, schema, enforced)
            except openai.BadRequestError as error:
                if not enforced or "response_format" not in str(error):
                    raise self._failed(error) from error
                # The schema goes into the prompt from now on, also of all that is in flight.
                self._speaks_schema = False
                for budget in budgets:
                    budget.usage.retried += 1
                continue
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                if not wire.worth_another(error):
                    raise self._failed(error) from error
                last = wire.said(error)
                failure = Unreachable if wire.nobody_there(error) else LLMError
                wait = wire.asked_wait(error) or wait
            except openai.OpenAIError as error:
                raise self._failed(error) from error
            except wire.NotACompletion as error:
                last = str(error)
            except TimeoutError:
                last = f"no whole answer in {self.timeout:g} s"
            else:
                if not done.prompt_tokens:  # it isn't told, and a cap holds all the same
                    most = request["max_tokens"]
                    done = replace(done, prompt_tokens=prompt, completion_tokens=most)
                cost = self._price(done.prompt_tokens, done.completion_tokens)
                for budget in budgets:
                    budget.spend(done, cost)
                return done.text
            finally:
                for budget in budgets:
                    budget.release(*bound)
            attempt += 1
            if attempt <= self.retries:
                for budget in budgets:
                    budget.usage.retried += 1
                await self._sleep(wait)
        raise failure(f"{self.endpoint.url} gave no answer in {self.retries + 1} tries: {last}")

    async def _try(
        self,
        messages: Sequence[Message],
        request: Mapping[str, Any],
        schema: Schema | None,
        enforced: bool,
    ) -> wire.Completion:
        """One request; enforced: the endpoint is to see to the schema, not the prompt."""
        await self._wait_for_turn()
        extra: dict[str, Any] = {}
        if schema is not None and enforced:
            extra["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(schema), "strict": True},
            }
        elif schema is not None:
            rule = "Answer with JSON only, valid against this schema: " + json.dumps(schema)
            messages = [*messages, {"role": "user", "content": rule}]
        create = self._openai.chat.completions.with_raw_response.create
        # The library walks through an argument part by part, which takes it tens of milliseconds
        # where a stream's every second is a message; the extra body goes out as it is.
        body = {"messages": list(messages), **(request.get("extra") or {})}
        ends = request.get("ends")
        if ends:
            body["stop_token_ids"] = list(ends)
        async with asyncio.timeout(self.timeout):
            response = await create(
                model=self.endpoint.model,
                messages=[],
                max_tokens=request["max_tokens"],
                temperature=request["temperature"],
                seed=request["sample"],
                extra_body=body,
                **extra,
            )
        # The library would take the body on trust.
        return wire.read_completion(response.content, ends)

    async def _wait_for_turn(self) -> None:
        if self._interval:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._interval
            if start > now:
                await self._sleep(start - now)

    def _price(self, prompt: int, completion: int) -> float:
        endpoint = self.endpoint
        return (prompt * endpoint.prompt_price + completion * endpoint.completion_price) / 1e6

    def _failed(self, error: openai.OpenAIError) -> LLMError:
        import openai

        hint = ""
        if isinstance(error, openai.AuthenticationError):
            hint = f" (the key is read from {self.endpoint.key_variable})"
        kind = Refused if wire.is_refusal(error) else LLMError
        return kind(f"{self.endpoint.url}: {wire.said(error)}{hint}")

    def _path(self, request: Mapping[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.cache / key[:2] / f"{key}.json"


def _read_answer(text: str, schema: Schema | None, *, cached: bool) -> Answer | Unparsed:
    if schema is None:
        return Answer(text, cached=cached)
    body = _THOUGHT.sub("", text).strip()
    fenced = _FENCED.search(body)
    try:
        data = json.loads(
            fenced.group(1) if fenced else body,
            parse_constant=_no_number,
            object_pairs_hook=_told_once,
        )
    except (ValueError, RecursionError):
        return Unparsed(text, "not JSON", cached)
    import jsonschema  # as `openai`: only where it is needed

    error = next(jsonschema.Draft202012Validator(schema).iter_errors(data), None)
    if error is not None:
        return Unparsed(text, f"not valid: {error.message[:200]}", cached)
    return Answer(text, data, cached)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _told_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that says "no" and "yes" under one name says neither."""
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a name stands in it twice")
    return data
