"""The figures of benchmarks/corpus.py, from times that are known."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

from benchmarks.corpus import YES, Took, asked, speed


def test_shares_are_of_the_first_way_by_the_clock_and_by_the_processors() -> None:
    phases = {"plan": (1.0, 0.5), "work": (3.0, 1.0), "settle": (0.0, 0.0), "write": (6.0, 2.5)}
    ways = {"raw": Took(9.0, 3.0, 0.0, 0.0), "corpus": Took(12.0, 6.0, 0.0, 0.0, phases)}
    rows = speed(ways, 90.0)
    assert rows[2] == "| raw | 9.00 | 10 | 3.00 | 100% | 100% |"
    assert rows[3] == "| corpus, its phases | 10.00 | 9 | 4.00 | 90% | 75% |"
    assert rows[4] == "| corpus | 12.00 | 8 | 6.00 | 75% | 50% |"
    assert "write 6.00 s" in rows[-1]


def test_the_endpoint_says_yes_and_counts() -> None:
    with asked() as (url, calls):
        for _ in range(2):
            body = json.dumps({"model": "yes", "messages": []}).encode()
            with urlopen(Request(f"{url}/chat/completions", body)) as told:
                answer = json.load(told)
    assert answer["choices"][0]["message"]["content"] == YES
    assert len(calls) == 2
