"""The card of a corpus: README.md beside its shards, written from the numbers alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.funnel import OTHERS, Funnel, Spent, Tally

_KNOWN_LICENCES = frozenset(
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-4.0 cc-by-3.0 cc-by-sa-4.0 "
    "cc-by-sa-3.0 gpl-2.0 gpl-3.0 lgpl-3.0".split()
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


_EXACT = "Pictures and labels were rendered from one script, so that the labels are exact. "


@dataclass(frozen=True)
class Checks:
    """Who looked at the clips: `verify` as it was asked for (auto, agents, off), the `model` behind
    the agents, by name their keys, the tools, and the stages that were left out for lack of
    agents; `exact`: the labels were rendered together with the pictures; `corrupt`: the share of
    clips that was damaged on purpose."""

    verify: str = "auto"
    model: str = ""
    agents: Mapping[str, str] = field(default_factory=dict)
    tools: Sequence[str] = ()
    left_out: Sequence[str] = ()
    exact: bool = False
    corrupt: float = 0.0

    def told(self, funnel: Funnel) -> str:
        """In plain words, how far these clips were verified."""
        if self.corrupt:
            return f"{self._damage(funnel)}{self._looks(funnel)}"
        return f"{_EXACT if self.exact else ''}{self._looks(funnel)}"

    def _damage(self, funnel: Funnel) -> str:
        hurt, left = funnel.damaged()
        return (
            f"{hurt} clips were damaged on purpose before anybody looked "
            f"(`source.corrupt={self.corrupt:g}`), to measure what verification is worth; "
            f"{left} of them are among these, and their histories say how. "
        )

    def _looks(self, funnel: Funnel) -> str:
        if self.verify == "off":
            return (
                "Verification was switched off (`corpus.verify=off`): nobody has looked at these "
                "clips but those who made them."
            )
        looked = "rules" + (f" and tools ({', '.join(self.tools)})" if self.tools else "")
        if not self.agents:
            return (
                "No model has looked at these clips: they say what their source says, checked by "
                f"{looked}. Left out for lack of agents: {', '.join(self.left_out) or 'nothing'}."
            )
        passed = funnel.stages["global"].kept if "global" in funnel.stages else 0
        return (
            f"After {looked}, agents on {self.model} looked twice: at each line with the pictures "
            "up to its second (local), and at the whole annotation with all pictures (global). "
            f"{passed} clips passed both. What an agent couldn't settle is not among these."
        )


def card(
    source: str,
    funnel: Funnel,
    checks: Checks,
    spent: Spent,
    targets: Iterable[Mapping[str, Any]] = (),
) -> str:
    """The text of the card. `funnel`: of the whole corpus; `targets`: `balance.Outcome`s as plain
    data."""
    whole = funnel.whole
    lines = [
        *_head(funnel),
        "# A corpus of streams, second by second",
        "",
        f"{whole.clips} clips, {hours(whole)} hours, {whole.events} events; "
        f"{percent(whole.silence)} of the seconds are silent. Each record is a clip with what is "
        "said on it and when; its pictures lie beside the labels as JPEG. Made from "
        f"`source={source}` by `recipe=corpus`.",
        "",
        "```python",
        'datasets.load_dataset("parquet", data_files="shard-*.parquet")',
        "```",
        "",
        "## What is in it",
        "",
    ]
    for kind in ("family", "language", "source", "licence", "use", "damage"):
        lines += [*_kinds(kind, funnel.by[kind]), ""]
    lines += ["## How it was verified", "", checks.told(funnel), ""]
    lines += [*_table(["agent", "prompt"], sorted(checks.agents.items())), ""]
    lines += ["## What was read, and what became of it", "", *_funnel(funnel), ""]
    lines += ["## Why clips are not in it", "", *_reasons(funnel), ""]
    lines += ["## Shares that were asked for", "", *_targets(targets), ""]
    lines += ["## What it cost", "", *_spent(spent)]
    text = "\n".join(lines).rstrip() + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def hours(tally: Tally) -> str:
    return f"{tally.seconds / 3600:.2f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def reasons(funnel: Funnel) -> list[tuple[str, str, str, int]]:
    """(stage, what it did, reason, count), the most frequent first; the plan's refusals among
    them."""
    found = [("plan", "refused", reason, count) for reason, count in funnel.refused.items()]
    for name, stage in funnel.stages.items():
        found += [(name, "rejected", reason, count) for reason, count in stage.rejected.items()]
        found += [(name, "unverified", reason, count) for reason, count in stage.unverified.items()]
    return sorted(found, key=lambda row: (-row[3], row[:3]))


def _head(funnel: Funnel) -> list[str]:
    """What dataset hubs read."""
    clips = funnel.whole.clips
    licences = [name.lower() for name in sorted(funnel.by["licence"])]
    languages = sorted(set(funnel.by["language"]) - {OTHERS})
    known = [name for name in licences if name in _KNOWN_LICENCES]
    named = known if known and len(known) == len(licences) else ["other"]
    size = next((name for most, name in _SIZES if clips < most), "n>1M")
    return [
        "---",
        "license:",
        *(f"- {name}" for name in named),
        "language:",
        # Quoted: to YAML a bare no, which is Norwegian, is false.
        *(f"- {json.dumps(name)}" for name in languages or ["en"]),
        "task_categories:",
        "- video-text-to-text",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        '  data_files: "shard-*.parquet"',
        "---",
        "",
    ]


def _kinds(kind: str, tallies: Mapping[str, Tally]) -> list[str]:
    rows = [
        (name or "not told", tally.clips, hours(tally), tally.events, percent(tally.silence))
        for name, tally in sorted(tallies.items())
    ]
    return _table([kind, "clips", "hours", "events", "silent seconds"], rows)


def _funnel(funnel: Funnel) -> list[str]:
    status = funnel.status
    rows: list[Sequence[Any]] = [
        (
            name,
            stage.entered,
            stage.kept,
            stage.changed,
            stage.rejected.total(),
            stage.unverified.total(),
        )
        for name, stage in funnel.stages.items()
    ]
    return [
        f"{funnel.read} candidates: {status['open']} admitted, {status['rejected']} rejected, "
        f"{status['unverified']} unverified, {status['refused']} refused before any stage.",
        "",
        *_table(["stage", "entered", "kept", "changed", "rejected", "unverified"], rows),
    ]


def _reasons(funnel: Funnel) -> list[str]:
    found = reasons(funnel)
    if not found:
        return ["All that was read is in it."]
    return _table(["stage", "verdict", "reason", "clips"], found)


def _targets(targets: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            each["what"],
            f"{each['target']:.1%}",
            f"{each['before']:.1%}",
            f"{each['after']:.1%}",
            "yes" if each["met"] else f"no: {each['why']}",
        )
        for each in targets
    ]
    return _table(["share of", "asked", "before", "after", "met"], rows) or ["None; as they come."]


def _spent(spent: Spent) -> list[str]:
    if not spent:
        return ["Nothing: no agent was asked."]
    names = ("asked", "calls", "cached", "unparsed", "failed", "tokens", "seconds", "cost")
    rows: list[Sequence[Any]] = [
        (agent, *(_figure(counts.get(name, 0.0)) for name in names))
        for agent, counts in sorted(spent.items())
    ]
    total = (sum(counts.get(name, 0.0) for counts in spent.values()) for name in names)
    rows.append(("all", *map(_figure, total)))
    return [
        "Costs are in the unit of the prices that the run was given; an answer from the cache cost "
        "nothing again.",
        "",
        *_table(["agent", *names], rows),
    ]


def _figure(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table in Markdown; nothing where there are no rows."""
    body = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not body:
        return []
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *body]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
