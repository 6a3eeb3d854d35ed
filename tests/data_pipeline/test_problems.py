"""Hard problems: each has the answer that it says it has."""

from __future__ import annotations

import itertools
import math
import random
import re
from datetime import datetime, timedelta

import pytest

from data_pipeline import problems
from joyvl_train.content import right


def numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", text)]


def worked_out(problem: problems.Problem) -> str | None:
    """The answer by another way than the problem was made; None for kinds that have none here."""
    asked = problem.question
    n = numbers(asked)
    match problem.kind:
        case "product":
            return str(n[0] * n[1] + n[2])
        case "arrival":
            start = datetime(2023, 1, 1, n[0], n[1])
            end = start + timedelta(hours=n[2], minutes=n[3] + n[4])
            return f"{end.hour}:{end.minute:02d}"
        case "weekday":
            today = next(day for day in problems.DAYS if day in asked)
            cycle = itertools.cycle(problems.DAYS)
            while next(cycle) != today:
                pass
            return next(itertools.islice(cycle, n[0] - 1, None))
        case "days":
            first, last = (
                datetime.strptime(f"{each} 2023", "%B %d %Y")
                for each in re.findall(r"[A-Z][a-z]+ \d+", asked)
            )
            return str((last - first).days)
        case "legs":
            return str(next(x for x in range(n[0]) if 4 * x + 2 * (n[0] - x) == n[1]))
        case "ages":
            times, later = n[:2]
            young = next(y for y in range(1, 99) if times * y + later == 2 * (y + later))
            return str(times * young)
        case "together":
            return str(next(t for t in itertools.count(1) if not any(t % each for each in n)))
        case "teams":
            small, great = sorted(n)
            return str(sum(1 for _ in itertools.combinations(range(great), small)))
        case "factor":
            left, prime = n[0], 2
            while left > 1:
                left, prime = (left // prime, prime) if left % prime == 0 else (left, prime + 1)
            return str(prime)
        case "binary":
            return bin(n[0])[2:]
        case "pumps":
            return str(round(1 / (1 / n[0] + 1 / n[1])))
        case "multiples":
            return str(sum(range(n[0], n[1], n[0])))
        case "mean":
            count, mean, wanted = n
            return str(wanted * (count + 1) - mean * count)
        case "easy sum":
            return str(sum(n))
    return None


@pytest.mark.parametrize("make", [*problems.HARD, problems.easy])
def test_the_answer_is_right_and_is_told(make):
    for seed in range(40):
        problem = make(random.Random(seed))
        assert worked_out(problem) in (None, problem.answer), problem.question
        assert right(problem.rule, problem.result, problem.result), problem
        assert right(problem.rule, problem.result, problem.answer), problem
        assert not right(problem.rule, problem.answer, "I couldn't work that out.")
        assert "{" not in problem.question + problem.result
        # "11033 is 11 times 17 times 59, so it is 59."
        assert "so it is" not in problem.result


def test_money_and_units_are_rounded_as_one_rounds_by_hand():
    for seed in range(40):
        bill = problems._bill(random.Random(seed))
        price, percent, people = (
            float(re.search(pattern, bill.question)[1])  # type: ignore[index]
            for pattern in (
                r"(\d+\.\d\d)",
                r"(\d+) percent",
                r"(?:do|we are) (\d+)",
            )
        )
        assert math.isclose(
            float(bill.answer), price * people * (1 - percent / 100), abs_tol=0.0051
        )
        degrees = problems._degrees(random.Random(seed))
        exact = (numbers(degrees.question)[0] - 32) / 1.8
        assert math.isclose(float(degrees.answer), exact, abs_tol=0.0501)


def test_one_is_told_in_the_singular():
    told = [problems.hard(random.Random(n)) for n in range(3000)]
    arrivals = [p.question for p in told if p.kind == "arrival"]
    assert any("1 hour and" in question for question in arrivals)
    for problem in told:
        text = f"{problem.question} {problem.result}"
        assert not re.search(r"(?<![\d.,:])1 (?:hours|minutes|days|years)\b", text), text


def test_the_same_numbers_make_the_same_problem_and_others_another():
    made = [problems.hard(random.Random(seed)) for seed in range(200)]
    assert made == [problems.hard(random.Random(seed)) for seed in range(200)]
    assert len({problem.question for problem in made}) > 195
    assert {problem.kind for problem in made} == {p(random.Random(0)).kind for p in problems.HARD}
    rng = random.Random(1)
    assert all(made[0].question in problems.asked(rng, made[0]) for _ in range(20))
