"""Hard problems in text, each with its one right answer; the same random numbers, the same problem.

They need no picture: a person couldn't answer them at once, and a program can check them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal

from joyvl_train.timeline import Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its answer. `answer` is the bare value, `result` tells it in a sentence with
    what it is the answer to, and `rule` says what counts as right."""

    kind: str
    question: str
    answer: str
    result: str
    rule: Rule


Maker = Callable[[random.Random], Problem]

LEADS = (
    "{q}",
    "Quick question: {q}",
    "While we watch: {q}",
    "Can you work this out? {q}",
    "I need to know this: {q}",
    "Help me with this one. {q}",
    "This has been on my mind: {q}",
    "Let me ask you something. {q}",
)
"""How a person comes to ask."""

TURNS = ("Something else: {q}", "By the way: {q}")
"""And how one who has said something before does."""

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kira", "Leo")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def hard(rng: random.Random) -> Problem:
    """A problem that calls for several steps."""
    return rng.choice(HARD)(rng)


def easy(rng: random.Random) -> Problem:
    """A sum that anyone has at once."""
    x, y = rng.randint(2, 9), rng.randint(2, 9)
    asked = rng.choice(
        ("What is {x} plus {y}?", "How much is {x} and {y}?", "{x} plus {y} is what?")
    )
    return _number("easy sum", asked.format(x=x, y=y), x + y, f"{x} plus {y} is {x + y}.")


def asked(rng: random.Random, problem: Problem, *, first: bool = False) -> str:
    """The problem as a person brings it up; `first`: nothing was said before."""
    leads = LEADS if first else LEADS + TURNS
    return rng.choice(leads).format(q=problem.question)


def _number(kind: str, question: str, value: int | Decimal, result: str) -> Problem:
    return Problem(kind, question, str(value), result, Rule("number", (str(value),)))


def _word(kind: str, question: str, answer: str, result: str) -> Problem:
    return Problem(kind, question, answer, result, Rule("key_facts", (answer,)))


def _many(count: int, unit: str) -> str:
    """The count with its unit: 1 hour, 2 hours."""
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _rounded(value: Decimal, places: str) -> Decimal:
    return value.quantize(Decimal(places), ROUND_HALF_UP)


def _product(rng: random.Random) -> Problem:
    x, y, z = rng.randint(123, 989), rng.randint(17, 98), rng.randint(101, 998)
    question = rng.choice(
        ("What is {x} times {y}, plus {z}?", "Multiply {x} by {y} and add {z}. What do you get?")
    )
    value = x * y + z
    return _number(
        "product", question.format(x=x, y=y, z=z), value, f"{x} times {y} plus {z} is {value}."
    )


def _bill(rng: random.Random) -> Problem:
    people, cents = rng.randint(6, 19), rng.randint(35, 189) * 20
    percent = rng.choice((5, 10, 15, 20, 25, 30))
    price, total = Decimal(cents) / 100, Decimal(cents * people * (100 - percent)) / 10000
    question = rng.choice(
        (
            "A ticket costs {price} and a group gets {percent} percent off. What do {people} of us "
            "pay in all?",
            "Dinner is {price} each, we are {people}, and there is a discount of {percent} "
            "percent. What is the bill?",
        )
    )
    value = _rounded(total, "0.01")
    told = f"{people} times {price:.2f} less {percent} percent is {value}."
    asked = question.format(price=f"{price:.2f}", people=people, percent=percent)
    return _number("bill", asked, value, told)


def _arrival(rng: random.Random) -> Problem:
    start, takes = rng.randint(6 * 60, 14 * 60), rng.randint(65, 9 * 60)
    wait = rng.randint(11, 55)
    stop = start + takes + wait
    clock = f"{stop // 60}:{stop % 60:02d}"
    question = rng.choice(
        (
            "The train leaves at {a}, travels for {h} and {m}, and stands for {w} "
            "minutes on the way. When does it arrive?",
            "I leave at {a}, drive {h} and {m}, and rest for {w} minutes. At what time am I there?",
        )
    )
    told = question.format(
        a=f"{start // 60}:{start % 60:02d}",
        h=_many(takes // 60, "hour"),
        m=_many(takes % 60, "minute"),
        w=wait,
    )
    return _word("arrival", told, clock, f"The time of arrival is {clock}.")


_UNITS = (
    ("miles", "kilometres", "1.609344"),
    ("pounds", "kilograms", "0.45359237"),
    ("inches", "centimetres", "2.54"),
    ("feet", "metres", "0.3048"),
    ("acres", "hectares", "0.40468564224"),
    ("US gallons", "litres", "3.785411784"),
    ("nautical miles", "kilometres", "1.852"),
)


def _units(rng: random.Random) -> Problem:
    one, other, factor = rng.choice(_UNITS)
    amount = rng.randint(23, 979)
    value = _rounded(amount * Decimal(factor), "0.1")
    question = rng.choice(
        (
            "How many {other} are {n} {one}, to one decimal?",
            "Convert {n} {one} to {other}, rounded to one decimal.",
        )
    )
    told = f"{amount} {one} are {value} {other}."
    return _number("units", question.format(n=amount, one=one, other=other), value, told)


def _degrees(rng: random.Random) -> Problem:
    fahrenheit = rng.randint(33, 451)
    value = _rounded(Decimal(fahrenheit - 32) * 5 / 9, "0.1")
    question = f"What is {fahrenheit} degrees Fahrenheit in Celsius, to one decimal?"
    told = f"{fahrenheit} degrees Fahrenheit are {value} degrees Celsius."
    return _number("degrees", question, value, told)


def _weekday(rng: random.Random) -> Problem:
    today, later = rng.randrange(7), rng.randint(38, 989)
    day = DAYS[(today + later) % 7]
    question = rng.choice(
        (
            "If today is {today}, what day of the week is it in {n} days?",
            "Today is {today}. Which weekday will it be {n} days from now?",
        )
    )
    told = f"{later} days after a {DAYS[today]} it is {day}."
    return _word("weekday", question.format(today=DAYS[today], n=later), day, told)


def _days(rng: random.Random) -> Problem:
    first = date(2023, 1, 1) + timedelta(rng.randint(0, 180))  # no leap year
    count = rng.randint(45, 180)
    last = first + timedelta(count)
    a, b = (f"{MONTHS[day.month - 1]} {day.day}" for day in (first, last))
    question = f"How many days is it from {a} to {b}, in a year that is no leap year?"
    return _number("days", question, count, f"From {a} to {b} it is {count} days.")


def _legs(rng: random.Random) -> Problem:
    four, two = rng.randint(7, 38), rng.randint(7, 38)
    question, animals = rng.choice(
        (
            (
                "A yard holds hens and rabbits: {h} heads and {l} legs. How many rabbits "
                "are there?",
                "rabbits",
            ),
            (
                "There are cows and geese on a meadow, {h} heads and {l} legs in all. How many of "
                "them are cows?",
                "cows",
            ),
        )
    )
    told = f"There are {four} {animals}."
    return _number("legs", question.format(h=four + two, l=4 * four + 2 * two), four, told)


def _ages(rng: random.Random) -> Problem:
    older, younger = rng.sample(NAMES, 2)
    k = rng.choice((3, 4, 5))
    step = rng.randint(3, 9)
    later, age = (k - 2) * step, step  # k * age + later == 2 * (age + later)
    question = (
        f"{older} is {k} times as old as {younger}. In {later} years {older} will be twice as old "
        f"as {younger}. How old is {older} now?"
    )
    told = f"{younger} is {age}, so {older} is {k * age}."
    return _number("ages", question, k * age, told)


def _together(rng: random.Random) -> Problem:
    a, b, c = rng.sample((8, 12, 14, 15, 16, 18, 20, 21, 24, 25, 27, 28, 30, 32, 35, 36), 3)
    value = math.lcm(a, b, c)
    question = (
        f"Three lamps blink every {a}, {b} and {c} seconds, and just now all at once. After how "
        "many seconds do they blink at once again?"
    )
    return _number("together", question, value, f"They blink at once every {value} seconds.")


def _teams(rng: random.Random) -> Problem:
    n, k = rng.randint(8, 16), rng.randint(3, 5)
    value = math.comb(n, k)
    question = rng.choice(
        (
            "In how many ways can {k} people be chosen out of {n}?",
            "We are {n}. How many different teams of {k} could we send?",
        )
    )
    told = f"The number of ways to choose {k} out of {n} is {value}."
    return _number("teams", question.format(n=n, k=k), value, told)


_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)


def _factor(rng: random.Random) -> Problem:
    primes = sorted(rng.sample(_PRIMES, 3))
    number = math.prod(primes)
    question = f"What is the largest prime that divides {number}?"
    a, b, largest = primes
    told = f"{number} is {a} times {b} times {largest}, so the largest is {largest}."
    return _number("factor", question, largest, told)


def _interest(rng: random.Random) -> Problem:
    start, percent, years = rng.randint(8, 96) * 100, rng.randint(2, 7), rng.randint(3, 6)
    value = _rounded(start * (1 + Decimal(percent) / 100) ** years, "0.01")
    question = rng.choice(
        (
            "I put {s} into the bank at {p} percent a year, compounded once a year. What is it "
            "worth after {y} years, to the cent?",
            "What do {s} grow to in {y} years at {p} percent yearly compound interest, to the "
            "cent?",
        )
    )
    told = f"{start} at {percent} percent for {years} years grow to {value}."
    return _number("interest", question.format(s=start, p=percent, y=years), value, told)


def _binary(rng: random.Random) -> Problem:
    number = rng.randint(130, 1000)
    value = int(f"{number:b}")
    question = f"How is {number} written in binary?"
    return _number("binary", question, value, f"In binary {number} is {value}.")


def _pumps(rng: random.Random) -> Problem:
    a, b = rng.choice(
        ((10, 15), (12, 36), (15, 30), (18, 36), (20, 30), (21, 28), (24, 40), (30, 45))
    )
    k = rng.randint(2, 9)
    a, b = a * k, b * k
    value = a * b // (a + b)
    assert value * (a + b) == a * b
    question = rng.choice(
        (
            "One pump empties the pool in {a} minutes, another in {b}. How many minutes do they "
            "need together?",
            "{x} paints a fence in {a} minutes, {y} in {b}. How many minutes do they need when "
            "they work together?",
        )
    )
    x, y = rng.sample(NAMES, 2)
    told = f"Together they need {value} minutes."
    return _number("pumps", question.format(a=a, b=b, x=x, y=y), value, told)


def _multiples(rng: random.Random) -> Problem:
    step, limit = rng.randint(3, 19), rng.randint(23, 98) * 10
    count = (limit - 1) // step
    value = step * count * (count + 1) // 2
    question = f"What is the sum of all multiples of {step} below {limit}?"
    told = f"The multiples of {step} below {limit} sum to {value}."
    return _number("multiples", question, value, told)


def _mean(rng: random.Random) -> Problem:
    count, mean, wanted = rng.randint(4, 9), rng.randint(61, 78), rng.randint(1, 2)
    value = (mean + wanted) * (count + 1) - mean * count
    question = (
        f"After {count} tests my average is {mean}. What must I score in the next one for an "
        f"average of {mean + wanted}?"
    )
    return _number("mean", question, value, f"The next score must be {value}.")


def _series(rng: random.Random) -> Problem:
    first, factor, plus = rng.randint(1, 6), rng.choice((2, 3)), rng.randint(1, 7)
    terms = [first]
    for _ in range(8):
        terms.append(factor * terms[-1] + plus)
    shown = ", ".join(map(str, terms[:5]))
    question = rng.choice(
        (
            "A series goes {shown}. Each number follows from the one before by the same rule. What "
            "is the ninth?",
            "{shown}: what is the ninth number of this series, if one simple rule makes each from "
            "the last?",
        )
    )
    told = f"Each is {factor} times the last plus {plus}; the ninth is {terms[8]}."
    return _number("series", question.format(shown=shown), terms[8], told)


HARD: tuple[Maker, ...] = (
    _product, _bill, _arrival, _units, _degrees, _weekday, _days, _legs, _ages, _together, _teams,
    _factor, _interest, _binary, _pumps, _multiples, _mean, _series,
)  # fmt: skip
