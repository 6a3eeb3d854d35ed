"""vLLM as a process of ours: whose port it is, how it is started anew, that it ends with us."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.vllm_process import PortTaken, Vllm, VllmError
from tests.serve.fake_vllm import fake_vllm, lives, pids
from tests.serve.test_faults import free_port


def made(folder: Path, does: str, **settings: object) -> Vllm:
    python, log = fake_vllm(folder, does), folder / "vllm.log"
    return Vllm(python, folder, "m", free_port(), log, **settings)  # type: ignore[arg-type]


def test_a_port_on_which_another_listens_is_refused(tmp_path: Path) -> None:
    vllm = made(tmp_path, "answers once")
    with socket.socket() as other:
        other.bind(("127.0.0.1", vllm.port))
        other.listen()
        with pytest.raises(PortTaken, match="Address already in use"):
            asyncio.run(vllm.start())
    assert not pids(tmp_path) and vllm.starts == 0


def test_one_that_ends_at_its_start_is_none_whoever_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm = made(tmp_path, "ends")

    async def answers(self: Vllm) -> bool:
        """Another was faster to the port."""
        while not pids(tmp_path) or lives(pids(tmp_path)[0]):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        return True

    monkeypatch.setattr(Vllm, "healthy", answers)
    with pytest.raises(VllmError, match=r"ended at its start:\nout of memory"):
        asyncio.run(asyncio.wait_for(vllm.start(), 60))


@pytest.mark.parametrize(("steady", "waits"), [(60.0, [1, 2, 4]), (0.0, [1, 1, 1])])
def test_one_that_ends_again_and_again_is_waited_for_longer_and_longer(
    tmp_path: Path, steady: float, waits: list[float]
) -> None:
    async def main() -> None:
        waited: list[float] = []
        enough = asyncio.Event()

        async def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == len(waits):
                enough.set()
                await asyncio.sleep(600)

        vllm = made(tmp_path, "answers once", steady=steady, sleep=sleep)
        await vllm.start()
        vllm.keep()
        await asyncio.wait_for(enough.wait(), 60)
        await vllm.stop()
        assert waited == waits and vllm.starts == len(pids(tmp_path)) == len(waits)

    asyncio.run(main())


def test_one_that_is_given_up_while_it_loads_ends(tmp_path: Path) -> None:
    async def main() -> None:
        vllm = made(tmp_path, "loads")
        starting = asyncio.create_task(vllm.start())
        async with asyncio.timeout(60):
            while not pids(tmp_path):
                await asyncio.sleep(0.01)
        starting.cancel()
        await asyncio.wait([starting])
        await vllm.stop()
        assert not lives(pids(tmp_path)[0])

    asyncio.run(main())


def test_one_whose_starter_is_killed_ends(tmp_path: Path) -> None:
    vllm = made(tmp_path, "loads")
    script = (
        "import asyncio, pathlib\n"
        "from serve.vllm_process import Vllm\n"
        f"python, folder = pathlib.Path({str(vllm.python)!r}), pathlib.Path({str(tmp_path)!r})\n"
        f"asyncio.run(Vllm(python, folder, 'm', {vllm.port}, folder / 'vllm.log').start())\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        assert soon(lambda: bool(pids(tmp_path)))
        assert lives(pids(tmp_path)[0])
    finally:
        starter.kill()
        starter.wait()
    assert soon(lambda: not lives(pids(tmp_path)[0]))


def soon(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a minute."""
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
