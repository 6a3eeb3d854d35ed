"""What solves delegated tasks: tools, commands within limits, what texts come to."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from joyvl_train.background import DIGEST_CHARS, Task
from serve.bridge import BackgroundError, Solved
from serve.events import EventLog
from serve.solvers import InOrder, RunCommand, UseTools, told
from serve.tools import calculate, counting, reading, search

GREY = Image.new("RGB", (16, 16), (90, 90, 90))


def task(question: str, second: int = 60) -> Task:
    return Task(1, second, "One moment.", question, "Earlier: nothing.", (GREY, GREY))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 345 times 12?", "345 times 12 is 4140."),
        ("What is 2 plus 3 times 4?", "2 plus 3 times 4 is 14."),
        ("How much is 12 percent of 50?", "12 divided by 100 times 50 is 6."),
        ("What is 7 over 2?", "7 divided by 2 is 3.5."),
        ("Is it 5 o'clock?", ""),
        ("What is 1 divided by 0?", ""),
        ("9**9**9", ""),
        ("__import__('os').system('ls') + 1", ""),
        ("(" * 500 + "1+1" + ")" * 500, ""),
    ],
)
def test_sums(question: str, answer: str) -> None:
    assert calculate(task(question)) == answer


def test_the_past_is_searched_and_the_future_is_not() -> None:
    log = EventLog()
    log.add("step", second=3, text="A car of an earlier stream.", action="response", latency=0.1)
    find = search(log)
    for second, text in ((5, "A red car came."), (9, "The dog left."), (70, "A car crashed.")):
        log.add("step", second=second, text=text, action="response", latency=0.1)
    log.add("summary", start=0, stop=40, text="31 s: a blue car came; 33 s: rain")
    assert (
        find(task("When did a car come before?")) == "5 s: A red car came.; 31 s: a blue car came"
    )
    assert find(task("How many cars are there?")) == ""


def test_tools_that_look() -> None:
    read, count = reading(lambda picture: ["EXIT", " "]), counting(lambda picture: ["dog"] * 2)
    assert read(task("What does the sign say?")) == "It reads: EXIT"
    assert count(task("How many dogs are there?")) == "In the picture: 2 dog."
    assert read(task("Who is that?")) == count(task("Who is that?")) == ""

    async def main() -> None:
        tools = UseTools({"sum": calculate, "read": read})
        assert await tools.solve(task("What does it say?")) == Solved("It reads: EXIT")
        with pytest.raises(BackgroundError, match="none of sum, read"):
            await tools.solve(task("Who is that?"))

    asyncio.run(main())


class Gives:
    """Gives this answer, or fails with that reason."""

    def __init__(self, digest: str = "", reason: str = "") -> None:
        self._digest, self._reason = digest, reason

    async def solve(self, task: Task) -> Solved:
        if self._reason:
            raise BackgroundError(self._reason)
        return Solved(self._digest)


def test_one_after_another_is_asked_until_there_is_an_answer() -> None:
    async def main() -> None:
        failed, empty, says = Gives(reason="no one there"), Gives(" "), Gives("It is 7.")
        for order in ([failed, empty, says], [says, failed], [empty, says, Gives("It is 8.")]):
            assert await InOrder(order).solve(task("What is it?")) == Solved("It is 7.")
        with pytest.raises(BackgroundError, match="no one there; an empty digest"):
            await InOrder([failed, empty]).solve(task("What is it?"))

    asyncio.run(main())


def test_what_a_text_comes_to() -> None:
    assert told("  It is 5. ") == Solved("It is 5.")
    page = told("Here it is.\n```html\n<p>Hi</p>\n```\nBye")
    assert page == Solved("Here it is.", b"<p>Hi</p>\n", "text/html; charset=utf-8")
    assert told("```\nx\n```").digest == "It is done."
    long = told("word " * 1000)
    assert len(long.digest) <= DIGEST_CHARS and long.artifact is not None


def run(code: str, **settings: object) -> Solved:
    command = RunCommand([sys.executable, "-c", code], **settings)  # type: ignore[arg-type]
    return asyncio.run(command.solve(task("Draw it.")))


def test_a_command_sees_its_task_and_leaves_an_artifact(tmp_path: Path) -> None:
    found = run(
        "import json, os; t = json.load(open('task.json'));"
        "print(t['question'], t['frames'], sorted(os.listdir('.')), os.environ.get('SECRET'));"
        "open('artifact.html', 'w').write('<p>' + os.getcwd())"
    )
    assert found.digest == "Draw it. 2 ['000.jpg', '001.jpg', 'task.json'] None"
    assert found.artifact is not None and found.media_type.startswith("text/html")
    assert not Path(found.artifact.decode()[3:]).exists()


@pytest.mark.parametrize(
    ("code", "settings", "why"),
    [
        ("raise SystemExit(3)", {}, "exit code 3"),
        ("print('x' * 10_000_000)", {"output_bytes": 100_000}, "printed more than"),
        ("open('artifact.txt', 'w').write('x' * 10**6)", {"output_bytes": 1000}, "exit code"),
        ("x = bytearray(2**31)", {"memory_bytes": 2**28}, "exit code"),
        ("while True: pass", {"cpu_seconds": 1}, "exit code"),
    ],
)
def test_a_command_is_held_within_limits(code: str, settings: dict, why: str) -> None:
    with pytest.raises(BackgroundError, match=why):
        run(code, **settings)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(BackgroundError, match="No such file"):
        asyncio.run(RunCommand(["/no/such/program"]).solve(task("Draw it.")))


def test_a_command_that_is_cancelled_takes_all_that_it_started_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '60']);"
        f"open({str(note)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )

    async def main() -> None:
        solving = asyncio.create_task(RunCommand([sys.executable, "-c", code]).solve(task("Go.")))
        async with asyncio.timeout(20):
            while not note.exists() or not note.read_text():
                await asyncio.sleep(0.05)
        solving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await solving

    asyncio.run(main())
    for _ in range(100):
        stat = Path(f"/proc/{note.read_text()}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    os.kill(int(note.read_text()), 9)
    raise AssertionError("what the command had started goes on")


def test_an_artifact_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    found = run(f"import os; os.symlink({str(secret)!r}, 'artifact.txt'); print('Done.')")
    assert found == Solved("Done.")
