"""Many questions in flight, answers in order, and nothing left behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.agents.asking import ask_in_order, wait_for
from joyvl_train.llm import BudgetError, LLMError

ROOT = Path(__file__).resolve().parents[3]


class Watch:
    """An `ask` that notes how many are in flight, began and were cancelled."""

    def __init__(self, delay: Any = lambda item: 0.0) -> None:
        self.delay = delay
        self.together = self.most_together = self.begun = self.cancelled = 0
        self.done: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        self.begun += 1
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            await asyncio.sleep(self.delay(item))
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0)  # what unwinds may take its time
            raise
        finally:
            self.together -= 1
        if isinstance(item, Exception):
            raise item
        self.done.append(item)
        return item


@given(st.lists(st.tuples(st.integers(), st.integers(0, 3)), max_size=25), st.integers(1, 7))
def test_results_come_in_order_with_a_bounded_window(
    items: list[tuple[int, int]], window: int
) -> None:
    watch, pulled = Watch(lambda item: item[1] / 2000), 0

    def source() -> Iterator[tuple[int, int]]:
        nonlocal pulled
        for item in items:
            pulled += 1
            yield item

    got = []
    for result in ask_in_order(source(), watch, window):
        got.append(result)
        assert pulled - len(got) < window
    assert got == items
    assert watch.most_together <= window and watch.together == 0


def test_a_window_is_filled() -> None:
    watch = Watch(lambda item: 0.02)
    assert list(ask_in_order(range(12), watch, 4)) == list(range(12))
    assert watch.most_together == 4
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        next(ask_in_order([1], watch, 0))


def test_nothing_is_asked_before_it_is_wanted() -> None:
    watch = Watch()
    answers = ask_in_order(range(10**9), watch, 3)
    assert watch.begun == 0
    assert [next(answers) for _ in range(5)] == [0, 1, 2, 3, 4]
    answers.close()  # type: ignore[attr-defined]
    assert watch.begun <= 8


def test_closed_early_nothing_goes_on() -> None:
    watch = Watch(lambda item: 60 if item else 0)
    answers = ask_in_order(range(9), watch, 4)
    assert next(answers) == 0
    while watch.begun < 4:
        pass
    answers.close()  # type: ignore[attr-defined]
    assert watch.together == 0 and watch.cancelled == 3
    assert list(answers) == []


def test_what_a_question_raises_arrives_at_its_place() -> None:
    watch = Watch(lambda item: 60 if item == 4 else 0)
    answers = ask_in_order([0, 1, LLMError("no"), 3, 4], watch, 5)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(LLMError, match="no"):
        next(answers)
    # What had begun is done, has raised or is cancelled; how far it got is the thread's affair.
    assert watch.together == 0 and 4 not in watch.done
    assert watch.begun == len(watch.done) + 1 + watch.cancelled


def test_what_the_items_raise_cancels_the_questions() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("torn")

    watch = Watch(lambda item: 60)
    with pytest.raises(OSError, match="torn"):
        list(ask_in_order(items(), watch, 5))
    assert watch.together == 0


def test_a_budget_that_is_spent_lets_paid_questions_end() -> None:
    watch = Watch(lambda item: 0.05 if item in (1, 2) else 0)
    with pytest.raises(BudgetError):
        list(ask_in_order([BudgetError("spent"), 1, 2], watch, 3))
    assert sorted(watch.done) == [1, 2] and watch.cancelled == 0


def test_stages_that_ask_stand_one_behind_another() -> None:
    first, second = Watch(lambda item: 0.001 * (item % 3)), Watch()
    stages = ask_in_order(ask_in_order(range(40), first, 5), second, 3)
    assert list(stages) == list(range(40))
    assert first.most_together <= 5 and second.most_together <= 3


def test_all_questions_share_one_thread() -> None:
    async def where(item: int) -> str:
        return threading.current_thread().name

    async def lone() -> str:
        return threading.current_thread().name

    assert {*ask_in_order(range(5), where, 2), wait_for(lone())} == {"questions"}


def test_a_question_may_not_wait_for_another() -> None:
    async def nested(item: int) -> int:
        return sum(ask_in_order([item], Watch(), 1))

    with pytest.raises(RuntimeError, match="await it"):
        list(ask_in_order([1], nested, 1))


def _in_a_child(results: Any) -> None:
    results.put(list(ask_in_order(range(4), Watch(), 2)))


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    assert list(ask_in_order(range(4), Watch(), 2)) == [0, 1, 2, 3]
    forking = multiprocessing.get_context("fork")
    results = forking.Queue()
    child = forking.Process(target=_in_a_child, args=(results,))
    child.start()
    assert results.get(timeout=60) == [0, 1, 2, 3]
    child.join(60)
    assert child.exitcode == 0


INTERRUPTED = """
import asyncio, os, signal, threading
from data_pipeline.agents.asking import ask_in_order

async def ask(item):
    try:
        await asyncio.sleep(0 if item == 0 else 600)
    except asyncio.CancelledError:
        print("cancelled", item, flush=True)
        raise
    return item

def stop():
    os.kill(os.getpid(), signal.SIGINT)

answers = ask_in_order(range(9), ask, 3)
print(next(answers), flush=True)
{what}
"""


@pytest.mark.parametrize(
    "what",
    [
        # While an answer is waited for, and while the consumer is at work with others in flight.
        "threading.Timer(0.2, stop).start(); next(answers)",
        "threading.Timer(0.2, stop).start(); import time; time.sleep(600)",
        "raise ValueError('a bug of the consumer')",
        "",
    ],
)
def test_an_interrupted_process_ends(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(what=what)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith("0\n")
    assert done.stdout.count("cancelled") >= 2
    assert (done.returncode != 0) == bool(what)
    expected = "KeyboardInterrupt" if "Timer" in what else "ValueError" if what else ""
    assert expected in done.stderr
    assert "never awaited" not in done.stderr and "was destroyed" not in done.stderr
