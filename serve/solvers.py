"""What solves delegated tasks: a model at an endpoint, a command, or tools that are at hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from joyvl_train.background import DIGEST_CHARS, Task
from joyvl_train.conversation import clean, cut
from joyvl_train.llm import Answer, Client, LLMError, image_part, text_part
from joyvl_train.pictures import encode
from serve.bridge import Backend, BackgroundError, Solved
from serve.events import EventLog

_TOLD = (
    "You work in the background for an assistant that watches a video stream. Answer the question; "
    "the pictures are its newest ones, and the notes tell what happened before. Begin with the "
    "answer in one or two sentences. If a document is asked for, such as a page of HTML, put it "
    "into one fenced block after that."
)
_FENCED = re.compile(r"```(\w*)[ \t]*\n(.*?)```", re.DOTALL)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "css": "text/plain; charset=utf-8",
}
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AskModel:
    """Asks a model behind an OpenAI-compatible endpoint; documents that it writes are artifacts."""

    client: Client
    system: str = _TOLD
    max_tokens: int = 2048

    async def solve(self, task: Task) -> Solved:
        said = "\n".join(
            [*([f"Notes:\n{task.memory_text}\n"] if task.memory_text else []), task.question]
        )
        content = [*(image_part(_jpeg(frame)) for frame in task.frames), text_part(said)]
        try:
            answer = await self.client.ask(
                [{"role": "system", "content": self.system}, {"role": "user", "content": content}],
                max_tokens=self.max_tokens,
            )
        except LLMError as error:
            raise BackgroundError(str(error)) from error
        if not isinstance(answer, Answer):
            raise BackgroundError("the model gave no answer")
        return told(answer.text)


def told(text: str) -> Solved:
    """What a text comes to: its first fenced block is the artifact, what stands before it the
    digest; a long text without one is itself the artifact."""
    block = _FENCED.search(text)
    if block is not None:
        before = clean(text[: block.start()]) or clean(text[block.end() :]) or "It is done."
        kind = _TYPES.get(block[1].casefold(), _PLAIN)
        return Solved(cut(before, DIGEST_CHARS), block[2].encode("utf-8", "replace"), kind)
    whole = clean(text)
    if len(whole) <= DIGEST_CHARS:
        return Solved(whole)
    return Solved(cut(whole, DIGEST_CHARS), text.encode("utf-8", "replace"), _PLAIN)


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Runs a command in a folder of its own, made for the task and deleted after it.

    The folder holds task.json (question, note, second, memory) and the frames, 000.jpg and on. What
    the command prints is read as `told` reads it; a file named artifact.* that it leaves is the
    artifact. It sees the variables named in `keep`, and no others; it may write `output_bytes` a
    file, use `cpu_seconds` and `memory_bytes`, and when its time is over its whole group is killed.
    It is not shut off from the network or from files that its user may read: run the server as a
    user who may read little.
    """

    command: Sequence[str]
    keep: Sequence[str] = ("PATH", "LANG", "HOME")
    output_bytes: int = 5 * 2**20
    cpu_seconds: int = 600
    memory_bytes: int = 4 * 2**30

    async def solve(self, task: Task) -> Solved:
        folder = Path(tempfile.mkdtemp(prefix="joyvl-task-"))
        try:
            await asyncio.to_thread(self._lay_out, folder, task)
            return await self._run(folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    def _lay_out(self, folder: Path, task: Task) -> None:
        asked = {
            "question": task.question,
            "note": task.note,
            "second": task.second,
            "memory": task.memory_text,
            "frames": len(task.frames),
        }
        (folder / "task.json").write_text(json.dumps(asked, ensure_ascii=False), "utf-8")
        for number, frame in enumerate(task.frames):
            (folder / f"{number:03d}.jpg").write_bytes(_jpeg(frame))

    async def _run(self, folder: Path) -> Solved:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                cwd=folder,
                env={name: os.environ[name] for name in self.keep if name in os.environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=self._limit,
            )
        except OSError as error:
            raise BackgroundError(f"{self.command[0]}: {error.strerror}") from error
        try:
            assert process.stdout is not None
            text = await self._read(process.stdout)
            code = await process.wait()
        finally:
            # Whatever it has started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code:
            raise BackgroundError(f"{self.command[0]} ended with exit code {code}")
        solved = told(text.decode("utf-8", "replace"))
        return await asyncio.to_thread(self._with_artifact, folder, solved)

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        text = bytearray()
        while piece := await stream.read(65536):
            text += piece
            if len(text) > self.output_bytes:
                raise BackgroundError(f"it printed more than {self.output_bytes} bytes")
        return bytes(text)

    def _with_artifact(self, folder: Path, solved: Solved) -> Solved:
        for path in sorted(folder.glob("artifact.*")):
            if path.is_symlink() or not path.is_file():
                continue
            if path.stat().st_size > self.output_bytes:
                raise BackgroundError(f"{path.name} has more than {self.output_bytes} bytes")
            kind = _TYPES.get(path.suffix[1:].casefold(), _PLAIN)
            digest = solved.digest if clean(solved.digest) else "It is done."
            return Solved(digest, path.read_bytes(), kind)
        return solved

    def _limit(self) -> None:
        """In the new process, before the command."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.output_bytes, self.output_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_seconds, self.cpu_seconds))
        resource.setrlimit(resource.RLIMIT_AS, (self.memory_bytes, self.memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class AskClient:
    """Tells the session's client of each task, question and all, as an event `asked`, and waits for
    the result that it gives (`Bridge.give`)."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def solve(self, task: Task) -> Solved:
        self._log.add("asked", task=task.number, note=task.note, question=task.question)
        never: asyncio.Future[Solved] = asyncio.get_running_loop().create_future()
        return await never


@dataclass(frozen=True, slots=True)
class UseTools:
    """Tries tools in their order; the first that has an answer gives it."""

    tools: Mapping[str, Any] = field(default_factory=dict)
    """Name -> tool: (task) -> its answer, "" where it has none."""

    async def solve(self, task: Task) -> Solved:
        for tool in self.tools.values():
            answer = await asyncio.to_thread(tool, task)
            if answer:
                return told(answer)
        raise BackgroundError(f"none of {', '.join(self.tools)} can answer this")


@dataclass(frozen=True, slots=True)
class InOrder:
    """Asks one after another, and gives the first answer; where there is none, why not."""

    backends: Sequence[Backend]

    async def solve(self, task: Task) -> Solved:
        reasons = []
        for backend in self.backends:
            try:
                solved = await backend.solve(task)
            except BackgroundError as error:
                reasons.append(str(error))
                continue
            if clean(solved.digest):
                return solved
            reasons.append("an empty digest")
        raise BackgroundError("; ".join(reasons))


def _jpeg(frame: Any) -> bytes:
    if isinstance(frame, Image.Image):
        return encode(frame.convert("RGB"))
    assert isinstance(frame, bytes)
    return frame
