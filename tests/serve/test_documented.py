"""The programs that docs/serve.md shows do what it says, word for word, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from joyvl_train.actions import Response
from serve.client import Client
from tests.serve.lived import Scripted
from tests.serve.running import jpeg, running, url

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8700"


def block(language: str, word: str) -> str:
    """The block of the page in this language that holds this word."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)
    (found,) = [each for each in blocks if word in each]
    return str(found)


async def printed(folder: Path, *command: str) -> str:
    """What a command prints, run in a folder that holds nothing."""
    folder.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


def test_the_program_shows_eight_seconds(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({3: Response("A fire appeared.")})
        async with running(tmp_path, model) as server:
            program = block("python", "asyncio.run").replace(ADDRESS, url(server))
            out = await printed(tmp_path / "a", sys.executable, "-c", program)
            lines = out.splitlines()
            assert len(lines) == 8 and "A fire appeared." in lines[3]
            assert model.prompts[0] == ("Describe what happens.",) and not len(server.sessions)

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_pictures_are_pushed_by_curl(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({5: Response("A white wall.")})
        async with running(tmp_path, model) as server:
            script = "set -e\n" + block("sh", "curl").replace(ADDRESS, url(server))
            out = await printed(tmp_path / "a", "bash", "-c", script)
            assert '"error"' not in out and out.endswith('{"closed": true}')
            told = out[out.index('{"events"') :].removesuffix('{"closed": true}')
            assert json.loads(told)["events"][0]["text"] == "What do you see?"
            assert server.sessions.opened == 1 and not len(server.sessions)

    asyncio.run(main())


def test_pictures_are_pushed_over_a_websocket(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted()
        async with (
            running(tmp_path, model) as server,
            Client(url(server)) as client,
            client.session({"kind": "push"}) as session,
        ):
            body = block("python", "client.socket").replace("\n", "\n    ")
            made: dict[str, object] = {}
            known = {"client": client, "session": session, "picture": lambda second: jpeg()}
            exec(f"async def shown():\n    {body}", known, made)
            await made["shown"]()  # type: ignore[operator]
            async with asyncio.timeout(10):
                while not model.prompts:
                    await asyncio.sleep(0.05)
            assert model.prompts == [("What do you see?",)]

    asyncio.run(main())
