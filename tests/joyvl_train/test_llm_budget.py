"""A cap holds whatever is set aside, used and released, and in whatever order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.llm_budget import Budget, BudgetError, room
from joyvl_train.llm_wire import Completion

CAP = 100


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1), st.booleans()), max_size=40))
def test_what_is_used_never_passes_the_cap(requests: list[tuple[int, float, bool]]) -> None:
    budget, flying = Budget(max_tokens=CAP, max_cost=CAP / 10), list[tuple[int, int]]()
    for most, share, ends in requests:
        if budget.has_room(most, most / 10):
            budget.hold(most, most / 10)
            flying.append((most, int(most * share)))
        if ends and flying:
            most, used = flying.pop(0)
            budget.spend(Completion("", used, 0), used / 10)
            budget.release(most, most / 10)
        aside = sum(most for most, _ in flying)
        assert budget.usage.tokens + aside <= CAP
    for most, _ in flying:
        budget.release(most, most / 10)
    left = CAP - budget.usage.tokens
    assert budget.has_room(left, 0.0) and not budget.has_room(left + 1, 0.0)


def test_room_is_waited_for_while_it_can_come() -> None:
    budget = Budget(max_tokens=CAP)

    async def work() -> list[str]:
        budget.hold(80, 0.0)
        told: list[str] = []

        async def later() -> None:
            await asyncio.sleep(0.05)
            told.append("released")
            budget.release(80, 0.0)

        async def waits() -> None:
            await room([budget, Budget()], 50, 0.0)
            told.append("room")

        await asyncio.gather(waits(), later())
        return told

    assert asyncio.run(work()) == ["released", "room"]
    budget.spend(Completion("", 60, 0), 0.0)
    with pytest.raises(BudgetError, match="60 of 100 tokens are used; the next request may need"):
        asyncio.run(room([budget], 50, 0.0))
