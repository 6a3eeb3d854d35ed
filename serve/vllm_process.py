"""vLLM, started as a process of our own with the options that live streams want."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp


class VllmError(RuntimeError):
    """vLLM did not start, or is gone; the message ends with the last of what it said."""


@dataclass(slots=True)
class Vllm:
    """A server of `checkpoint` on this machine's `port`, in the environment of `python`.

    images: pictures that a prompt may hold. length: tokens that it may have. log: what it prints
    goes there. `keep` starts it anew whenever it ends by itself.
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
        """Returns once it answers. Raises `VllmError`."""
        self.starts += 1
        environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        environment.pop("PYTHONPATH", None)  # the packages of another environment are not its own
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
                )
            except OSError as error:
                raise VllmError(f"{self.python}: {error.strerror}") from None
        try:
            async with asyncio.timeout(seconds):
                while not await self.healthy():
                    if self._process.returncode is not None:
                        raise VllmError(f"vLLM ended at its start:\n{self._said()}")
                    await asyncio.sleep(0.5)
        except TimeoutError:
            await self._kill()
            raise VllmError(f"vLLM did not answer in {seconds:g} s:\n{self._said()}") from None

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
        wait = 1.0
        while True:
            assert self._process is not None
            await self._process.wait()
            await self._kill()
            await asyncio.sleep(wait)
            wait = min(2 * wait, 60.0)
            with contextlib.suppress(VllmError):
                await self.start()
                wait = 1.0

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
