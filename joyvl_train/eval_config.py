"""The keys of recipe=eval: which cases are played, to whom, and who judges."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key

SYSTEMS = (
    "model",
    "poller",
    "ask_only",
    "poller_same",
    "ask_only_same",
    "never_delegates",
    "always_delegates",
    "trivial",
)


@dataclass
class CasesConfig:
    suite: str = _key(
        "scenarios",
        "cases that ship: 58 in six scenarios, 12 of delegation, or none",
        choices=("scenarios", "delegation", "none"),
    )
    paths: list[str] = _key([], "files and folders of cases of one's own, played as well")
    benchmark: str = _key(
        "",
        "records of a published benchmark that are played in place of cases, scored by its own "
        "rules, subset by subset",
        choices=("", "ovo_bench", "streamingbench_proactive"),
    )
    annotations: str = _key("", "file of the records of cases.benchmark")
    videos: str = _key("", "folder that the names of their videos start from")
    only: list[str] = _key([], "ids or scenarios of the cases that are played; empty: all")
    systems: list[str] = _key(
        ["model", "poller", "ask_only", "trivial"],
        "who is played: the model; the base, asked every poll_seconds or when spoken to; the same "
        "of the model's own checkpoint (_same); the model, made to hand over nothing or all it is "
        "asked; policies that look at nothing",
        choices=SYSTEMS,
    )
    url: str = _key("", "OpenAI-compatible endpoint that plays too, such as http://host:8000/v1")
    model: str = _key("", "name of the model at cases.url")
    key_variable: str = _key("OPENAI_API_KEY", "environment variable that holds its key")
    taught: bool = _key(
        False,
        "the model at cases.url knows the grammar; false: it is told it in the system text, and "
        "answers with the control strings as plain text",
    )
    served: str = _key(
        "",
        "a server of recipe=serve whose model plays too, such as http://127.0.0.1:8700; it is to "
        "have serve.background=[client]",
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
        "model",
        "memory of chunks that are over: what was said alone, or what the model tells of their "
        "pictures, too",
        choices=("said", "model"),
    )
    latency: int | float | str = _key(
        0.0,
        "seconds by which all that is said is heard later; measured: as long as its step took",
        low=0,
        high=3600,
        choices=("measured",),
    )
    workers: int = _key(0, "processes that play cases; 0: one a core", low=0, high=256)
    footage: bool = _key(True, "cases before real footage, too, which is fetched before")
    samples: int = _key(2000, "bootstrap samples of a rate", low=1, high=10**6)
    name: str = _key("", "name of the model on leaderboards; empty: that of the run's folder")
    runs: list[str] = _key(
        [], "finished runs: that command=compare ranks, =rate shows, =aggregate asked to be rated"
    )
    board: str = _key("", "leaderboard that command=compare extends; empty: one in the run")
    against: list[str] = _key(
        [], "systems that command=rate sets beside the model; empty: all but the trivial ones"
    )
    ratings: list[str] = _key([], "exported ratings, for command=aggregate")
