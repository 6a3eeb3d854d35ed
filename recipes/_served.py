"""The vLLM that draws rollouts for recipe=grpo: started here, or already there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from joyvl_train.config import Config, UserError
from joyvl_train.rendering import Renderer
from joyvl_train.run import Run
from recipes._data import rate
from recipes._speaking import trained_type
from rl.served import ServedSampler, publish

if TYPE_CHECKING:
    from serve.vllm_process import Vllm


def check_served(config: Config) -> None:
    """Raises `UserError` for what can't be drawn by an endpoint."""
    grpo = config.grpo
    for key, given in (("urls", grpo.urls), ("weights", grpo.weights)):
        if given and grpo.sampler != "url" and (key, grpo.sampler) != ("weights", "vllm"):
            raise UserError(f"grpo.{key}: goes with grpo.sampler=url, not {grpo.sampler}")
    if grpo.sampler == "own":
        return
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if len(grpo.urls) > ranks:
        raise UserError(
            f"grpo.urls: there are {len(grpo.urls)} for {ranks} ranks; take one for each"
        )
    for url in grpo.urls:
        if not _ADDRESS.fullmatch(url):
            raise UserError(f"grpo.urls: {url!r} is no address; write http://HOST:PORT/v1")
    if grpo.sampler == "vllm" and int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) < ranks:
        raise UserError(
            "grpo.sampler=vllm: starts one for this machine, and there are several; start them, "
            "and name them in grpo.urls (grpo.sampler=url)"
        )
    if grpo.top_p < 1:
        raise UserError(
            f"grpo.top_p={grpo.top_p}: vLLM tells log-probabilities of what is left of the mass; "
            f"with grpo.sampler={grpo.sampler} it must be 1"
        )
    if grpo.sampler == "url" and not grpo.urls:
        raise UserError("grpo.sampler=url: grpo.urls is empty; name the endpoints that draw")
    if grpo.sampler == "vllm" and not Path(config.serve.vllm_python).exists():
        raise UserError(
            f"serve.vllm_python={config.serve.vllm_python}: is not there; `make vllm-env` makes "
            "one for CPUs, or take grpo.sampler=own"
        )


_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?(/v1)?/?")

Sampling = Callable[[int, int], ServedSampler]
"""(rank, ranks) -> what draws this rank's rollouts."""


@contextmanager
def served(config: Config, run: Run, renderer: Renderer, source: str) -> Iterator[Sampling | None]:
    """What draws rollouts, as long as the context lasts; None: the policy itself."""
    if config.grpo.sampler == "own":
        yield None
        return
    try:
        if config.grpo.sampler == "url":
            yield partial(sampler, config, run, renderer, source, config.grpo.urls)
        else:
            with started(config, run, source) as url:
                yield partial(sampler, config, run, renderer, source, (url,))
    finally:
        if run.is_main:
            folder = folder_of(config, run)
            for left in folder.parent.glob(f"{folder.name}*"):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def started(config: Config, run: Run, source: str) -> Iterator[str]:
    """The address of a vLLM that the first rank starts, as long as the context lasts."""
    from serve.vllm_process import PortTaken, VllmError  # joyvl[serve], which not all have

    vllm = vllm_of(config, run, source)
    with asyncio.Runner() as runner:
        try:
            if run.is_main:
                run.say(f"starting vLLM; what it says goes to {vllm.log}")
                runner.run(vllm.start())
            else:  # not in a collective, whose time may be up before so large a model is loaded
                runner.run(vllm.there())
            yield vllm.url
        except PortTaken as error:
            port = config.serve.vllm_port
            raise UserError(f"serve.vllm_port={port}: {error}; take another") from None
        except VllmError as error:
            raise UserError(f"grpo.sampler=vllm: {error}") from None
        finally:
            runner.run(vllm.stop())


def vllm_of(config: Config, run: Run, source: str) -> Vllm:
    """A vLLM of the checkpoint at `source` whose weights can be changed."""
    from serve.vllm_process import Vllm

    serve = config.serve
    return Vllm(
        Path(serve.vllm_python).absolute(),
        Path(source).absolute(),
        serve.served_model or serve.name,
        serve.vllm_port,
        run.dir / "vllm.log",
        images=(config.stream.chunk + config.stream.lead) * int(rate(config)),
        options=["--logprobs-mode", "processed_logprobs", *serve.vllm_options],
        variables={"VLLM_SERVER_DEV_MODE": "1"},
    )


def folder_of(config: Config, run: Run) -> Path:
    """Where the weights stand that endpoints are to read: this run's alone."""
    own = run.dir.resolve()
    place = Path(config.grpo.weights).absolute() if config.grpo.weights else own
    return place / f"policy-{hashlib.blake2b(str(own).encode(), digest_size=8).hexdigest()}"


def sampler(
    config: Config,
    run: Run,
    renderer: Renderer,
    source: str,
    urls: Sequence[str],
    rank: int,
    ranks: int,
) -> ServedSampler:
    """What draws this rank's rollouts, of the endpoints at `urls`."""
    folder = folder_of(config, run)
    return ServedSampler(
        urls[rank % len(urls)],
        config.serve.served_model or config.serve.name,
        renderer,
        lambda model: publish(model, renderer.processor, folder, source, trained_type(config)),
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.grpo.temperature,
        system=config.prompt.system,
        leads=rank < len(urls),
    )
