"""What was paid stands written down, whatever becomes of the process that paid it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.candidates import Candidate
from data_pipeline.costs import CostLog, spent_in
from data_pipeline.parts import Local, PartsError, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.work import StageWork, Workshop
from tests.data_pipeline.made_corpus import source

ROOT = Path(__file__).resolve().parents[2]


class Payer:
    """A stage that pays for each candidate, and may fail at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        self.counts: Counter[str] = Counter()
        self.fails_at = fails_at
        self.note = lambda: None

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for each in candidates:
            if self.counts["calls"] == self.fails_at:
                raise RuntimeError("the power is gone")
            self.counts.update(calls=1, tokens=15, cost=2)
            self.note()
            yield each

    def shop(self) -> Workshop:
        def watch(note) -> None:
            self.note = note

        spent = {"payer": self.counts}
        return Workshop((self,), spent=lambda: spent, watch=watch)


def work_of(folder: Path, payer: Payer) -> StageWork:
    plan = make_plan(source(30), folder / "plan", 10, "s")
    return StageWork(plan, folder / "work", payer.shop, "pays")


def test_each_question_is_a_line_and_a_part_that_is_done_is_one(tmp_path: Path) -> None:
    payer = Payer()
    with CostLog(tmp_path / "costs", 3, lambda: {"payer": payer.counts}) as log:
        for number in (1, 2):
            payer.counts["calls"] += number
            log.note()
            log.note()  # nothing new
        lines = log.path.read_text().splitlines()
        assert lines == ['{"payer": {"calls": 1}}', '{"payer": {"calls": 2}}']
        assert spent_in(tmp_path / "costs") == {"payer": {"calls": 3}}
    assert log.path.read_text().splitlines() == ['{"payer": {"calls": 3}}']
    with CostLog(tmp_path / "costs", 4, lambda: {"payer": payer.counts}):
        pass
    assert list((tmp_path / "costs").iterdir()) == [log.path]
    torn = tmp_path / "costs" / "00005.aa.jsonl"
    torn.write_text('{"payer": {"calls": 4}}\n{"payer": {"cal')
    assert spent_in(tmp_path / "costs") == {"payer": {"calls": 7}}


def test_what_a_failed_part_has_cost_is_kept_when_it_is_done_again(tmp_path: Path) -> None:
    work = work_of(tmp_path, Payer(fails_at=13))
    with pytest.raises(PartsError):
        run_parts(work.plan.sizes, work, Local(), tmp_path / "work", progress=False)
    paid = work.spent()["payer"]["calls"]
    assert paid == 13
    again = work_of(tmp_path, Payer())
    left = sum(size for part, size in enumerate(work.plan.sizes) if not work.done(part))
    run_parts(work.plan.sizes, again, Local(), tmp_path / "work", progress=False)
    assert again.spent() == {
        "payer": {"calls": paid + left, "tokens": 15 * (paid + left), "cost": 2 * (paid + left)}
    }


SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.data_pipeline.test_costs import Payer, work_of

payer = Payer()
work = work_of(Path(sys.argv[1]), payer)

def killed(count):
    if payer.counts["calls"] == 17:
        os.kill(os.getpid(), signal.SIGKILL)

for part in range(3):
    work(part, killed)
"""


def test_what_a_killed_process_has_paid_is_kept(tmp_path: Path) -> None:
    """Killed in its second part, after 17 questions."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    payer = Payer()
    work = work_of(tmp_path, payer)
    assert work.done(0) and not work.done(1)
    assert work.spent() == {"payer": {"calls": 17, "tokens": 255, "cost": 34}}
    run_parts(work.plan.sizes, work, Local(), tmp_path / "work", progress=False)
    assert work.spent()["payer"]["calls"] == 17 + payer.counts["calls"] > sum(work.plan.sizes)
