"""vLLM, started as a process of our own with the options that live streams want."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from serve.port import check_port

log = logging.getLogger("joyvl.serve")

_SET_PDEATHSIG = 1  # of prctl(2)
_libc = ctypes.PyDLL(None) if sys.platform == "linux" else None

_NOT_ITS_OWN = re.compile(
    "PYTHONPATH$|TORCHELASTIC_|ACCELERATE_|ROLE_|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)$|"
    "MASTER_(ADDR|PORT)$"
)

_LONGEST = 60.0
"""Seconds that are waited at most before it is started anew."""


class VllmError(RuntimeError):
    """vLLM did not start, or is gone; the message ends with the last of what it said."""


class PortTaken(VllmError):
    """Something else listens on its port."""


@dataclass(slots=True)
class Vllm:
    """A server of `checkpoint` on this machine's `port`, in the environment of `python`.

    images: pictures that a prompt may hold. length: tokens that it may have. log: what it prints
    goes there. variables: of its environment, beside this process's. On Linux it ends with this
    process, however that ends. `keep` starts it anew whenever it ends by itself, after a wait that
    doubles until it has answered for `steady` seconds.
    """

    python: Path
    checkpoint: Path
    name: str
    port: int
    log: Path
    images: int = 256
    length: int = 16384
    dtype: str = "auto"
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    steady: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    starts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def command(self) -> list[str]:
        """Its command line."""
        return [
            *(str(self.python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self.checkpoint), "--served-model-name", self.name),
            *("--host", "127.0.0.1", "--port", str(self.port), "--dtype", self.dtype),
            *("--limit-mm-per-prompt", f'{{"image": {self.images}, "video": 0}}'),
            *("--max-model-len", str(self.length), "--enable-prefix-caching"),
            *self.options,
        ]

    async def start(self, seconds: float = 900.0) -> None:
        """Returns once it answers. Raises `VllmError`; `PortTaken` before anything is started."""
        self._check_port()
        self.starts += 1
        environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        # Neither the packages of another environment are its own, nor the ranks of a training run.
        for name in [name for name in environment if _NOT_ITS_OWN.match(name)]:
            del environment[name]
        environment |= self.variables
        with self.log.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command(),
                    env=environment,
                    cwd=self.log.parent,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
            except OSError as error:
                raise VllmError(f"{self.python}: {error.strerror}") from None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    answers = await self.healthy()
                    if self._process.returncode is not None:  # then it is another that answers
                        raise VllmError(f"vLLM ended at its start:\n{self._said()}")
                    if answers:
                        return
                    await asyncio.sleep(0.5)
        except TimeoutError:
            await self._kill()
            raise VllmError(f"vLLM did not answer in {seconds:g} s:\n{self._said()}") from None

    async def there(self, seconds: float = 900.0) -> None:
        """Returns once one that another process starts answers. Raises `VllmError`."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.healthy():
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise VllmError(f"{self.url} did not answer in {seconds:g} s") from None

    def _check_port(self) -> None:
        """What answers on the port must be what is started here, not a server of another model."""
        try:
            check_port("127.0.0.1", self.port)
        except OSError as error:
            raise PortTaken(f"the port can't be listened on ({error.strerror})") from None

    async def healthy(self) -> bool:
        """Whether it answers now."""
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"http://127.0.0.1:{self.port}/health") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def keep(self) -> None:
        """From now on it is started anew when it ends."""
        self._keeper = asyncio.create_task(self._kept(), name="vllm")

    async def stop(self) -> None:
        """Ends it, and all that it has started."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._kill()

    async def _kept(self) -> None:
        wait, since = 1.0, time.monotonic()
        while True:
            assert self._process is not None
            await self._process.wait()
            if time.monotonic() - since >= self.steady:
                wait = 1.0
            await self._kill()
            log.warning("vLLM has ended; it is started anew in %g s", wait)
            await self.sleep(wait)
            wait = min(2 * wait, _LONGEST)
            try:
                await self.start()
            except VllmError as error:
                log.warning("%s", error)
            since = time.monotonic()

    async def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        for sign, seconds in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 15.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _said(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text[-2000:]


def _end_with_parent() -> None:
    """In the child: SIGTERM once its parent is gone, which a killed one can't send any more."""
    if _libc is not None:
        _libc.prctl(_SET_PDEATHSIG, signal.SIGTERM)
