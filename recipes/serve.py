"""Serve a checkpoint that watches live streams: an API, and a page to try it on."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from joyvl_train.checkpoint import load_processor
from joyvl_train.config import Config, UserError
from joyvl_train.llm import Client as Asks
from joyvl_train.llm import Endpoint
from joyvl_train.rendering import Renderer
from joyvl_train.run import Run
from recipes._background import check_background, modules_of, solver_of
from recipes._cases import silence_bias
from recipes._made import as_trained, made_with
from recipes._sample import sample
from recipes._serve_report import tell
from recipes._speaking import check_codec, engine_of, speaker
from recipes._speech import speech_of
from recipes._world import cells, rate, settings
from serve.chat_model import ChatModel, cached, control_ids
from serve.client import Client
from serve.guard import TOKEN, Guard, is_loopback
from serve.in_process import InProcess
from serve.live import LiveSettings, Model
from serve.memory import Keeper, Said, Searched, Seen
from serve.port import check_port, is_all
from serve.server import Server
from serve.sessions import Limits, Served, Sessions
from serve.sources import Sources
from serve.vllm_process import PortTaken, Vllm, VllmError
from serve.webrtc import WebRtc

UNTRAINED = (
    "this is a base model, which was never taught when to speak and says something meaningless "
    "each second; train one first (`make demo`, or recipe=sft), or name one, checkpoint=RUN"
)


class Stopped(Exception):
    """A signal came before anything was served."""


def main(config: Config, run: Run) -> None:
    """Listens until it is told to stop (Ctrl-C, SIGTERM); then sessions end one by one."""
    check(config)
    run.use_threads()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for chatty in ("aioice", "aiortc", "httpx"):  # a line a connection, or a line a second
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(served(config, run))
    except Stopped:
        run.say("stopped while the model was starting")
        return
    except PortTaken as error:
        port = config.serve.vllm_port
        raise UserError(f"serve.vllm_port={port}: {error}; take another") from None
    except VllmError as error:
        raise UserError(f"serve.engine=vllm: {error}") from None
    run.finish(latest=False)


def check(config: Config) -> None:
    """Raises `UserError` for what can't be served, or not safely."""
    serve = config.serve
    token = os.environ.get(serve.token_variable, "")
    if token and not TOKEN.fullmatch(token):
        raise UserError(
            f"{serve.token_variable}: a browser can't send this token; take one of letters, digits "
            "and - . _ ~ alone, such as `openssl rand -hex 24` gives"
        )
    if not is_loopback(serve.host) and not token:
        raise UserError(
            f"serve.host={serve.host} is beyond this machine: put a token into the variable "
            f"{serve.token_variable}, and name this server in serve.hosts"
        )
    if is_all(serve.host) and not serve.hosts:
        raise UserError(
            f"serve.host={serve.host}: serve.hosts is empty, so that everybody would be refused; "
            "name this server as its clients call it: serve.hosts=[NAME]"
        )
    if serve.engine == "url" and not serve.urls:
        raise UserError("serve.engine=url: serve.urls is empty; name the model's endpoints")
    if serve.videos and not Path(serve.videos).is_dir():
        raise UserError(f"serve.videos={serve.videos}: there is no such folder")
    if serve.engine == "vllm" and not Path(serve.vllm_python).exists():
        raise UserError(
            f"serve.vllm_python={serve.vllm_python}: is not there; `make vllm-env` makes one for "
            "CPUs, or take serve.engine=in_process"
        )
    if serve.every > 1 and config.data.codec != "off":
        raise UserError(
            f"serve.every={serve.every}: data.codec={config.data.codec} tells a frame by the one a "
            "second before; leave it at 1"
        )
    if "default" not in serve.modes:
        raise UserError("serve.modes: there must be one that is called default")
    check_background(config)
    if "endpoint" in (config.speech.ears, config.speech.voice) and not config.speech.url:
        raise UserError("speech.url is empty; name the endpoint that hears and speaks")
    for pattern in serve.mute:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"serve.mute: {pattern!r} is no regular expression ({error})") from None
    try:
        check_port(serve.host, serve.port)
    except OSError as error:
        raise not_listening(config, error) from None


def not_listening(config: Config, error: OSError) -> UserError:
    """Why `serve.host` and `serve.port` can't be listened on."""
    serve = config.serve
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return UserError(
            f"serve.host={serve.host}: is no address of this machine; take 127.0.0.1, or one that "
            "it has"
        )
    why = os.strerror(error.errno or 0).lower()
    return UserError(f"serve.port={serve.port}: {why}; take another, or 0 for any free one")


async def served(config: Config, run: Run) -> None:
    """Models -> sessions -> server, until a signal comes."""
    serve = config.serve
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        models, bias, warning = await stack.enter_async_context(replicas(config, run, stopped))
        heed_signals(stopped)
        webrtc = WebRtc()
        stack.push_async_callback(webrtc.close)
        solver = await stack.enter_async_context(solver_of(config))
        speech = await stack.enter_async_context(speech_of(config))
        sessions = Sessions(
            [
                Served(
                    serve.name,
                    models,
                    partial(keeper, config),
                    live_settings(config, bias),
                    warning,
                )
            ],
            sources(config),
            run.dir / "artifacts",
            limits=Limits(
                sessions=serve.sessions,
                idle=serve.idle,
                longest=serve.longest,
                kept=serve.kept,
                task_seconds=serve.task_seconds,
            ),
            background=solver,
            modules=modules_of(config),
            speech=speech,
        )
        token = os.environ.get(serve.token_variable, "")
        hosts = {name.casefold() for name in (*serve.hosts, serve.host)}
        guard = Guard(token, hosts, serve.origins)
        server = Server(sessions, guard, offer=webrtc.offer if serve.webrtc else None)
        try:
            await server.start(serve.host, serve.port)
        except OSError as error:  # taken while the model was loaded
            raise not_listening(config, error) from None
        stack.push_async_callback(server.stop)
        run.say(f"listening on {address(serve.host, server.port, serve.hosts)}/")
        if serve.check:
            own = address(serve.host, server.port, ["localhost"])
            await unless(stopped, watch_sample(config, own, token))
        else:
            await stopped.wait()
        run.say("stopping")
        await server.stop()
        tell(run, sessions)


def address(host: str, port: int, names: Sequence[str]) -> str:
    """Where a server of this host can be asked; one that is all of a machine's addresses, and none
    to be asked at, by the first of its `names`."""
    name = names[0] if is_all(host) else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@asynccontextmanager
async def replicas(
    config: Config, run: Run, stopped: asyncio.Event
) -> AsyncIterator[tuple[Sequence[Model], float, str]]:
    """The replicas of the model, its bias towards silence, and what its users should know of it.
    Raises `Stopped` where a signal comes while vLLM starts."""
    serve = config.serve
    async with AsyncExitStack() as stack:
        if serve.engine == "url":
            if config.data.codec != "off":
                run.say(f"data.codec={config.data.codec}: what serve.urls read was not looked at")
            if not config.stream.chunk_seconds:
                run.say(
                    f"stream.chunk_seconds={config.stream.chunk}: give it as what serve.urls read "
                    "was trained with, where that is another"
                )
            models = [await remote(config, url, stack) for url in serve.urls]
            yield models, config.eval.silence_bias, ""
            return
        start = run.find_checkpoint(["grpo", "sft", "base", "kept"])
        bias = silence_bias(config, run, start.path)
        as_trained(config, run, start.path)
        warning = "" if trained(config, run, Path(start.path)) else UNTRAINED
        if warning:
            run.say(f"warning: {warning}")
        if serve.engine == "in_process":
            engine = engine_of(*speaker(config, start.path), config)
            yield [await stack.enter_async_context(InProcess(engine))], bias, warning
            return
        if config.data.codec != "off":
            check_codec(config, Renderer(load_processor(start.path)))
        vllm = Vllm(
            Path(serve.vllm_python).absolute(),
            Path(start.path).absolute(),
            serve.served_model or serve.name,
            serve.vllm_port,
            run.dir / "vllm.log",
            images=(config.stream.chunk + config.stream.lead) * int(rate(config)),
            options=serve.vllm_options,
        )
        run.say(f"starting vLLM; what it says goes to {vllm.log}")
        heed_signals(stopped)  # from here on: a signal that ends Python at once would leave it
        stack.push_async_callback(vllm.stop)
        if not await unless(stopped, vllm.start()):
            raise Stopped
        vllm.keep()
        yield [await remote(config, vllm.url, stack)], bias, warning


def trained(config: Config, run: Run, checkpoint: Path) -> bool:
    """Whether this model was taught when to speak: the kept base and those of recipe=base, which
    name what they see and know nothing of when, were not."""
    kept = (run.home / config.model.kept).resolve()
    return checkpoint.resolve() != kept and made_with(checkpoint).get("recipe") != "base"


async def remote(config: Config, url: str, stack: AsyncExitStack) -> ChatModel:
    """The model at an endpoint, which knows the grammar."""
    serve = config.serve
    name = serve.served_model or serve.name
    client = Asks(
        Endpoint(url, name, serve.key_variable),
        concurrency=serve.sessions + 1,
        timeout=4 * serve.step_timeout,
        retries=0,
    )
    model = ChatModel(
        client,
        system=config.prompt.system,
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        raw=True,
        strict=True,  # a session tells why a second has no answer
        names=serve.uuids,
        control=await control_ids(url, name, os.environ.get(serve.key_variable, "")),
    )
    stack.push_async_callback(model.end)
    watching = asyncio.create_task(_watch_cache(model, url), name="prefix cache")
    stack.callback(watching.cancel)
    return model


async def _watch_cache(model: ChatModel, url: str) -> None:
    while True:
        told = await cached(url)
        model.cache = told and told.share
        await asyncio.sleep(5.0)


def live_settings(config: Config, bias: float) -> LiveSettings:
    """How sessions are lived."""
    serve = config.serve
    mute = [re.compile(pattern, re.IGNORECASE) for pattern in serve.mute]

    def say(text: str, asked: bool) -> str:
        return text if asked or not any(each.search(text) for each in mute) else ""

    return LiveSettings(
        stream=settings(config),
        side=config.data.size,
        multiple=cells(config),
        modes={name: value + bias for name, value in serve.modes.items()},
        step_timeout=serve.step_timeout,
        say=say,
    )


def keeper(config: Config, model: Model) -> Keeper:
    """What tells of the past of one session."""
    chars = settings(config).limits.told_chars
    if config.serve.memory == "said":
        return Said(chars)
    seen = Seen(model.ask, chars=chars)
    return seen if config.serve.memory == "seen" else Searched(seen)


def sources(config: Config) -> Sources:
    """What sessions may watch."""
    serve = config.serve
    return Sources(
        videos=Path(serve.videos).absolute() if serve.videos else None,
        rtsp=serve.rtsp,
        sample=(
            partial(sample, side=min(serve.picture_side, 384), every=serve.every)
            if serve.sample
            else None
        ),
        frames_per_second=int(rate(config)),
        side=serve.picture_side,
        every=serve.every,
        most=serve.backlog,
    )


async def watch_sample(config: Config, url: str, token: str) -> None:
    """Follows the sample stream for `serve.check` steps, as a client."""
    steps = 0
    async with Client(url, token) as client, client.session({"kind": "sample"}) as session:
        async for event in session.events():
            steps += event["kind"] == "step"
            if steps >= config.serve.check:
                return


def heed_signals(stopped: asyncio.Event) -> None:
    """From now on SIGINT and SIGTERM set `stopped`, and end nothing by themselves."""
    stop: Callable[[], None] = stopped.set
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop)


async def unless(stopped: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` was done; it is broken off where `stopped` is set before."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait([working, waiting])
