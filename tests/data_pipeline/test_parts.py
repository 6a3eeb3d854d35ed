"""Parts in one process and in several: errors, deaths, Ctrl-C, the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipeline.parts import Advanced, Ended, Local, PartsError, Tick, run_parts
from joyvl_train.config import UserError

ROOT = Path(__file__).resolve().parents[2]
SIZES = [3] * 6


@dataclass
class Writes:
    """Writes a file a part, and a line a time that it is begun."""

    folder: Path
    wait: float = 0.0

    def path(self, part: int) -> Path:
        return self.folder / f"{part}.out"

    def done(self, part: int) -> bool:
        return self.path(part).exists()

    def __call__(self, part: int, tick: Tick) -> None:
        with (self.folder / f"{part}.begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        self.trouble(part)
        time.sleep(self.wait)
        for _ in range(SIZES[part]):
            tick(1)
        self.path(part).write_text(f"part {part}")

    def trouble(self, part: int) -> None: ...

    def begun(self, part: int) -> int:
        path = self.folder / f"{part}.begun"
        return len(path.read_text().split()) if path.exists() else 0

    def finished(self) -> list[int]:
        return [part for part in range(len(SIZES)) if self.done(part)]


@dataclass
class Raises(Writes):
    def trouble(self, part: int) -> None:
        if part in (1, 3):
            raise KeyError(f"no {part}")


@dataclass
class Stops(Writes):
    def trouble(self, part: int) -> None:
        if part == 2:
            raise UserError("data.cache_dir=x: can't be written; name another")


@dataclass
class Dies(Writes):
    """Part 1 kills its process every time, part 4 the first time."""

    def trouble(self, part: int) -> None:
        if part == 1 or (part == 4 and self.begun(4) == 1):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class DiesLate(Writes):
    """Told of two candidates, the first time, when its process dies."""

    def __call__(self, part: int, tick: Tick) -> None:
        if not self.begun(part):
            (self.folder / f"{part}.begun").write_text(f"{os.getpid()}\n")
            tick(1)
            time.sleep(0.6)
            tick(1)
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(part, tick)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_is_done_once(tmp_path, workers):
    work = Writes(tmp_path)
    work.path(2).write_text("part 2")
    run_parts(SIZES, work, Local(workers), tmp_path, progress=False)
    assert work.finished() == [0, 1, 2, 3, 4, 5]
    assert [work.begun(part) for part in range(6)] == [1, 1, 0, 1, 1, 1]
    run_parts(SIZES, work, Local(workers), tmp_path, progress=False)
    assert work.begun(0) == 1
    own = (tmp_path / "0.begun").read_text().split() == [str(os.getpid())]
    assert own == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_one_part_leaves_the_others_alone(tmp_path, workers):
    work = Raises(tmp_path)
    with pytest.raises(PartsError, match="2 of 6 parts failed.*part 1: KeyError: 'no 1'"):
        run_parts(SIZES, work, Local(workers), tmp_path, progress=False)
    assert work.finished() == [0, 2, 4, 5]
    assert "KeyError: 'no 3'" in (tmp_path / "failed/00003.txt").read_text()
    mended = Writes(tmp_path)
    run_parts(SIZES, mended, Local(workers), tmp_path, progress=False)
    assert mended.finished() == [0, 1, 2, 3, 4, 5]
    assert mended.begun(0) == 1
    assert not list((tmp_path / "failed").iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_fault_of_the_part_stops_all(tmp_path, workers):
    work = Stops(tmp_path)
    with pytest.raises(UserError, match="data.cache_dir=x"):
        run_parts(SIZES, work, Local(workers), tmp_path, progress=False)
    assert 2 not in work.finished() and 0 in work.finished()
    assert 5 not in work.finished()


def test_a_process_that_dies_loses_no_other_part(tmp_path):
    work = Dies(tmp_path)
    with pytest.raises(PartsError, match="1 of 6 parts failed.*killed by signal 9, 2 times"):
        run_parts(SIZES, work, Local(2), tmp_path, progress=False)
    assert work.finished() == [0, 2, 3, 4, 5]
    assert (work.begun(1), work.begun(4)) == (2, 2)


def test_work_that_cannot_be_sent_to_a_process_says_so(tmp_path):
    work = Writes(tmp_path)
    work.trouble = lambda part: None  # type: ignore[method-assign]
    with pytest.raises(Exception, match="pickle"):
        run_parts(SIZES, work, Local(2), tmp_path, progress=False)


def test_progress_counts_candidates(tmp_path, capsys):
    run_parts(SIZES, Writes(tmp_path), Local(1), tmp_path, name="stages")
    shown = capsys.readouterr().err
    assert "stages: 100%" in shown and "18/18" in shown and "clip/s" in shown


def test_a_part_that_begins_again_is_not_counted_twice(tmp_path):
    seen: list[Advanced | Ended] = []
    Local(2).run([4, 5], DiesLate(tmp_path), tmp_path, seen.append)
    counts = {4: 0, 5: 0}
    for event in seen:
        if isinstance(event, Advanced):
            counts[event.part] += event.candidates
    assert counts == {4: 3, 5: 3}
    assert Advanced(4, -2) in seen
    assert [event for event in seen if isinstance(event, Ended) and event.error] == []


SCRIPT = """
import sys
from pathlib import Path
from data_pipeline.parts import Local, run_parts
from tests.data_pipeline.test_parts import SIZES, Writes
if __name__ == "__main__":
    work = Writes(Path(sys.argv[1]), wait=0.4)
    run_parts(SIZES, work, Local(2), sys.argv[1], progress=False)
"""


@pytest.fixture
def running(tmp_path):
    """A process that works with two workers, while both have a part."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        cwd=ROOT,
        env=here,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    work = Writes(tmp_path)
    for _ in range(400):
        if sum(work.begun(part) for part in range(6)) >= 2:
            break
        time.sleep(0.05)
    yield process, work
    process.kill()
    process.wait()


def workers_gone(work: Writes) -> bool:
    pids = {int(p) for part in range(6) if work.begun(part) for p in begun_by(work, part)}
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def begun_by(work: Writes, part: int) -> list[str]:
    return (work.folder / f"{part}.begun").read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(running, sign):
    process, work = running
    if sign == signal.SIGINT:
        os.killpg(process.pid, sign)  # as a terminal does
    else:
        process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -sign
    assert errors.decode().count("Traceback") == (sign == signal.SIGINT)
    assert workers_gone(work)
    finished = work.finished()
    assert len(finished) < 6
    run_parts(SIZES, work, Local(1), work.folder, progress=False)
    assert work.finished() == [0, 1, 2, 3, 4, 5]
