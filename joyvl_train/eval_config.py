"""The keys of recipe=eval: which cases are played, to whom, and who judges."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key

SYSTEMS = ("model", "poller", "ask_only", "poller_same", "ask_only_same", "trivial")
JUDGES = ("rule", "model")


@dataclass
class CasesConfig:
    suite: str = _key(
        "scenarios",
        "cases that ship: 58 in six scenarios, 12 of delegation, or none",
        choices=("scenarios", "delegation", "none"),
    )
    paths: list[str] = _key([], "files and folders of cases of one's own, played as well")
    only: list[str] = _key([], "ids or scenarios of the cases that are played; empty: all")
    systems: list[str] = _key(
        ["model", "poller", "ask_only", "trivial"],
        "who is played: the model; the base, asked every poll_seconds or when spoken to; the same "
        "of the model's own checkpoint (_same); policies that look at nothing",
        choices=SYSTEMS,
    )
    recorded: list[str] = _key([], "transcripts of further systems, JSON lines")
    base: str = _key("", "checkpoint of the turn-based baselines; empty: the kept base")
    poll_seconds: int = _key(5, "seconds between two questions of a poller", low=1, high=3600)
    poll_cut: int = _key(
        300, "seconds after which the poller's session is over, reported apart", low=1, high=86_400
    )
    ask_cut: int = _key(
        135, "seconds after which the session of ask_only is, reported apart", low=1, high=86_400
    )
    summaries: str = _key(
        "said",
        "memory of chunks that are over: what was said, or what the model tells of its frames too",
        choices=("said", "model"),
    )
    latency: float | str = _key(
        0.0,
        "seconds by which all that is said is heard later; measured: as long as its step took",
        low=0,
        high=3600,
        choices=("measured",),
    )
    workers: int = _key(0, "processes that play cases; 0: one a core", low=0, high=256)
    footage: bool = _key(True, "cases before real footage, too, which is fetched before")
    samples: int = _key(2000, "bootstrap samples of a rate", low=1, high=10**6)
    runs: list[str] = _key([], "runs that command=compare sets side by side")
