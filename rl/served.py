"""Rollouts drawn by a vLLM, in another process or on other GPUs, instead of the policy itself.

`ServedSampler` stands where a `branching.BranchingEngine` would: a window's second is one request,
the chat of its chunk so far, with as many choices as rollouts have said the same up to there. The
endpoint keeps what prompts share in its prefix cache and pictures by their names. Before each step
`take` brings it the policy's weights: a checkpoint in a folder that it can read, too, taken up in
place (`reload_weights`; vLLM must be started with VLLM_SERVER_DEV_MODE=1).

Its arithmetic is not that of training. What it tells of its draws, their log-probabilities, goes
into the loss as `drawn` (`rl.policy_loss`), and how far the two are apart is logged. It must not
hide an endpoint that reads another prompt: the prompt's tokens are compared in every step.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from joyvl_train.branching import Branch
from joyvl_train.chat_request import name_of, with_pictures
from joyvl_train.config import UserError
from joyvl_train.conversation import messages
from joyvl_train.model_weights import save_final
from joyvl_train.pictures import encode_lossless
from joyvl_train.processor import ImageTensors, Processor
from joyvl_train.ranks import is_first, wait_for_all
from joyvl_train.rendering import Renderer
from joyvl_train.reply import Reply, read_reply
from joyvl_train.sampling import Draw, Sampling
from joyvl_train.stream import Stream

T = TypeVar("T")

_WHOLE = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""The whole distribution: what is not said, vLLM takes from the checkpoint's generation config."""


class Pictured(ImageTensors):
    """The image processor's tensors of one picture, and the file that an endpoint is sent."""

    data: bytes = b""


class ServedSampler:
    """Draws the turns of streams at `url`, an OpenAI-compatible vLLM, from the model `model`.

    Its log-probabilities must be those at the temperature (`--logprobs-mode
    processed_logprobs`). publish: writes the model's weights, on all ranks, into a folder that the
    endpoint reads. leads: this process brings it the weights, for all that draw from it. most:
    requests in flight. `branch` and `take` raise `UserError` where the endpoint fails, after
    `tries`, or says what can't be read.
    """

    def __init__(
        self,
        url: str,
        model: str,
        renderer: Renderer,
        publish: Callable[[Any], Path],
        *,
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        system: str = "",
        leads: bool = True,
        most: int = 64,
        seconds: float = 600.0,
        tries: int = 4,
    ) -> None:
        self.url, self.model, self.renderer, self.system = url.rstrip("/"), model, renderer, system
        self.sampling = Sampling(max_new_tokens, temperature)
        self._publish = publish
        self._seconds, self._tries = seconds, tries
        self._streams: dict[int, Stream] = {}
        self._opened, self._most, self._leads = 0, most, leads
        self._held: set[str] = set()  # names of pictures that the endpoint has answered about
        self._compared = False
        self._runner = asyncio.Runner()
        self._http: httpx.AsyncClient | None = None

    def prepare(self, picture: Any) -> Pictured:
        """What stands for a picture in the streams that are drawn from."""
        images = self.renderer.processor.images([picture])
        shown = Pictured(images)
        shown.tiles = getattr(images, "tiles", ())
        shown.data = encode_lossless(picture)
        return shown

    # What a rollout uses

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self._streams[self._opened] = stream
        return self._opened

    def random(self, seed: int) -> int:
        """Stands for a rollout's draws; the random numbers are the endpoint's own.

        A request could have a seed, but what comes of it hangs on what is asked beside it all the
        same, and vLLM 0.32 ends where a seeded request is read in parts on a CPU.
        """
        return seed

    def stream(self, handle: int) -> Stream:
        return self._streams[handle]

    def close(self, handle: int) -> None:
        del self._streams[handle]

    def branch(
        self, handles: Sequence[int], randoms: Sequence[Sequence[int]]
    ) -> list[list[Branch]]:
        """As of `BranchingEngine`; of `randoms` their number counts."""
        wanted = [(handle, len(each)) for handle, each in zip(handles, randoms, strict=True)]
        drawn = self._run(lambda: self._all(wanted))
        return [
            self._parted(handle, replies) for handle, replies in zip(handles, drawn, strict=True)
        ]

    def _parted(self, handle: int, replies: Sequence[Reply]) -> list[Branch]:
        """The replies to one stream, those that are alike as one branch."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, reply in enumerate(replies):
            alike.setdefault(reply.tokens, []).append(number)
        # The largest goes on in the stream itself; copies are made before it takes its action.
        groups = sorted(alike.values(), key=len, reverse=True)
        places = [handle, *(self.open(self._streams[handle].fork()) for _ in groups[1:])]
        return [
            Branch(place, replies[numbers[0]], tuple(numbers))
            for place, numbers in zip(places, groups, strict=True)
        ]

    # Weights

    def take(self, model: Any) -> None:
        """From now on the endpoint draws from `model` as it is now. Every rank calls it, and waits
        for the others before it draws."""
        self._compared = False
        self._held.clear()
        folder = self._publish(model)
        if not self._leads:
            return
        asked = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        told = self._run(lambda: self._reloaded(asked))
        if told.get("success") is not True:
            raise UserError(
                f"grpo.sampler: {self.url} did not let go of its prefix cache; does anybody else "
                "ask it meanwhile? It must be this run's alone"
            )

    def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        if self._http is not None:
            self._runner.run(self._http.aclose())
        self._runner.close()

    # Over HTTP

    def _run(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(self._seconds, pool=None),
                limits=httpx.Limits(max_connections=self._most),
                trust_env=False,
            )
        return self._runner.run(what())

    async def _all(self, wanted: Sequence[tuple[int, int]]) -> list[list[Reply]]:
        """The replies to each (handle, how many). The first that fails ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._drawn(*each)) for each in wanted]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _drawn(self, handle: int, count: int) -> list[Reply]:
        stream = self._streams[handle]
        frames = [frame.data for turn in stream.turns for frame in turn.frames]
        shown = {name_of(data) for data in frames}
        chat = messages(stream.memory_text, stream.turns, self.system)
        body = {
            "model": self.model,
            "n": count,
            "max_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            **_WHOLE,
            "logprobs": True,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        held = self._held & shown
        told = None
        if held:
            # What it has lost meanwhile it refuses to guess at; then all are sent once more.
            short = body | {"messages": with_pictures(chat, frames, names=True, held=held)}
            told = await self._asked("v1/chat/completions", short, refused=True)
        if told is None:
            whole = body | {"messages": with_pictures(chat, frames, names=True)}
            told = await self._asked("v1/chat/completions", whole)
        self._held |= shown
        assert told is not None
        return self._replies(told, stream, count)

    def _replies(self, told: Mapping[str, Any], stream: Stream, count: int) -> list[Reply]:
        try:
            prompt = [int(token) for token in told["prompt_token_ids"]]
            choices = sorted(told["choices"], key=lambda choice: int(choice["index"]))
            drawn = [
                (
                    [int(token) for token in choice["token_ids"]],
                    [float(each["logprob"]) for each in choice["logprobs"]["content"]],
                )
                for choice in choices
            ]
        except (KeyError, TypeError, ValueError):
            raise self._strange("it tells no tokens with their log-probabilities") from None
        if not all(math.isfinite(each) for _, logprobs in drawn for each in logprobs):
            raise self._strange("it told log-probabilities that are no numbers")
        if len(drawn) != count or any(len(ids) != len(logs) or not ids for ids, logs in drawn):
            raise self._strange(f"it told other than {count} choices with their log-probabilities")
        if not self._compared:
            self._compare(prompt, stream)
        replies = []
        for ids, logprobs in drawn:
            ended = ids[-1] in self.renderer.stop_ids
            draw = Draw(self.sampling, torch.Generator(), {}, ids, logprobs, ended=ended)
            replies.append(read_reply(self.renderer, draw, len(prompt)))
        return replies

    def _compare(self, prompt: Sequence[int], stream: Stream) -> None:
        """`UserError` where the endpoint has read another prompt than training will."""
        own = self.renderer.render(stream.memory_text, stream.turns, self.system)
        if list(own.ids) != list(prompt):
            at = next(
                (i for i, (a, b) in enumerate(zip(own.ids, prompt, strict=False)) if a != b),
                min(len(own.ids), len(prompt)),
            )
            raise UserError(
                f"grpo.sampler: {self.url} reads another prompt than training does, from token "
                f"{at} of {len(own.ids)} on; serve the checkpoint that this run starts from"
            )
        self._compared = True

    async def _reloaded(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Weights are read again, and what was made by the old ones goes, with the pictures, which
        vLLM's workers have dropped by then without a word to its scheduler."""
        for path, body in (
            ("collective_rpc", asked),
            ("reset_mm_cache", None),
            ("reset_encoder_cache", None),
            ("reset_prefix_cache", None),
        ):
            told = await self._asked(path, body)
        assert told is not None
        return told

    async def _asked(self, path: str, body: Any, refused: bool = False) -> Mapping[str, Any] | None:
        """The JSON object that is answered; refused: None where the request is not taken (4xx)."""
        assert self._http is not None
        base = self.url.removesuffix("/v1")
        problem = ""
        for attempt in range(self._tries):
            if attempt:
                await asyncio.sleep(2.0**attempt)
            try:
                answer = await self._http.post(f"{base}/{path}", json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if answer.status_code >= 500:
                problem = f"status {answer.status_code}: {answer.text[:300]}"
                continue
            if answer.status_code >= 400:
                if refused:
                    return None
                missing = answer.status_code == 404 and not path.startswith("v1/")
                hint = "; start vLLM with VLLM_SERVER_DEV_MODE=1" if missing else ""
                raise self._strange(f"{path}: {answer.status_code} {answer.text[:300]}{hint}")
            try:
                told = json.loads(answer.content or "{}")
            except ValueError:
                told = None
            if not isinstance(told, dict):
                raise self._strange(f"{path}: it answered with something that is no JSON object")
            return told
        raise self._strange(
            f"no answer in {self._tries} tries, the last: {problem}; what vLLM printed tells why"
        )

    def _strange(self, what: str) -> UserError:
        return UserError(f"grpo.sampler: {self.url}: {what}")


def publish(
    model: Any, processor: Processor, folder: Path, source: str | Path, dtype: torch.dtype | None
) -> Path:
    """`save_final`, in the form that a vLLM takes up in place; `folder`.

    On CPUs vLLM 0.32 keeps the output embeddings in an order of their own, which it makes anew only
    where they are in the checkpoint by name. Tied ones aren't, so they are written beside it.
    """
    save_final(model, processor, folder, source, dtype)
    whole = folder / "model.safetensors"
    if is_first() and whole.exists():
        with safe_open(whole, "pt") as weights:
            names = set(weights.keys())
            tied = [name for name in names if name.endswith("language_model.embed_tokens.weight")]
            if tied and not any(name.endswith("lm_head.weight") for name in names):
                save_file(
                    {"lm_head.weight": weights.get_tensor(tied[0])}, folder / "head.safetensors"
                )
    wait_for_all()
    return folder
