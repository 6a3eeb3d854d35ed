"""One record's whole history, wherever it ended: refused, rejected, unverified or admitted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Note, candidate_from_json
from data_pipeline.plan import STAGE as PLAN
from joyvl_train.config import UserError
from joyvl_train.records import StreamLabels
from joyvl_train.shard_reader import Shard, read_index
from joyvl_train.timeline import Event

LEAST = 6
"""Digits of an id by which a record may be named, if no other begins with them."""


@dataclass(frozen=True)
class _Found:
    """Where a record stands, and what is known of it; part: of one that the stages let by."""

    where: str
    candidate: Candidate
    part: str | None = None
    admitted: bool = False


def history_of(id: str, run: Path) -> str:
    """What became of the record `id` of the run in this folder, as lines of text.

    `id` is a record's, its first digits, or the name of an input item ("events.csv line 3").
    `UserError` where there is none, or more than one begins so.
    """
    refused = [line for line in _lines(run / "plan" / "refused.jsonl", id) if _is(line, id)]
    # Each phase that is done knows more of a record than the one before.
    found = {one.candidate.id: one for one in _planned(run, id)}
    found |= {one.candidate.id: one for one in _worked(run, id)}
    found |= {one.candidate.id: one for one in _rejected(run, id)}
    found |= {one.candidate.id: one for one in _admitted(run, found)}
    own = [one for one in found.values() if _named(one.candidate, id)]
    by_id = [one for one in own if one.candidate.id.startswith(id)]
    if len(by_id) > 1 and id not in found:
        names = ", ".join(sorted(one.candidate.id for one in by_id)[:4])
        raise UserError(f"id={id}: {len(by_id)} records begin so ({names}); give more of it")
    if id in found:
        own = [found[id]]
    if not own and not refused:
        raise UserError(
            f"id={id}: {run} holds no such record; ids stand in its report.html and its rejects, "
            "and input items are called as in plan/refused.jsonl"
        )
    blocks = [*map(_refused_lines, refused)]
    for one in sorted(own, key=lambda one: one.candidate.id):
        children = [
            other.candidate.id
            for other in found.values()
            if other.candidate.work.get("parent") == one.candidate.id
        ]
        blocks.append(_candidate_lines(one, children))
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def _named(candidate: Candidate, id: str) -> bool:
    items = candidate.work.get("items") or ()
    return candidate.id == id or (len(id) >= LEAST and candidate.id.startswith(id)) or id in items


def _is(line: Mapping[str, Any], id: str) -> bool:
    where = str(line["where"])
    return where == id or (len(id) >= LEAST and "candidate" in line and where.startswith(id))


def _lines(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """The lines that hold `text` somewhere; of the many others none is parsed."""
    needle = json.dumps(text)[1:-1].encode()
    try:
        with path.open("rb") as file:
            for line in file:
                if needle in line:
                    yield json.loads(line)
    except FileNotFoundError:
        return


def _parts(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdigit())


def _planned(run: Path, id: str) -> Iterator[_Found]:
    for path in _parts(run / "plan"):
        for line in _lines(path, id):
            yield _Found(f"planned in {path}, not worked on yet", candidate_from_json(line))


def _worked(run: Path, id: str) -> Iterator[_Found]:
    for path in _parts(run / "work"):
        for line in _lines(path, id):
            where = f"worked on in {path}, not settled yet"
            yield _Found(where, candidate_from_json(line), path.stem)


def _rejected(run: Path, id: str) -> Iterator[_Found]:
    for path in _parts(run / "rejects"):
        for line in _lines(path, id):
            yield _Found(str(path), candidate_from_json(line))


def _admitted(run: Path, found: Mapping[str, _Found]) -> Iterator[_Found]:
    """Of those that are found and open, what their shard says; its parts are numbered alike."""
    corpus = run / "corpus"
    if not (corpus / "index.json").exists():
        return
    entries = {entry["name"]: entry for entry in read_index(corpus)["shards"]}
    wanted: dict[str, list[Candidate]] = {}
    for one in found.values():
        if one.candidate.status == "open" and one.part is not None:
            wanted.setdefault(f"shard-{one.part}", []).append(one.candidate)
    for name, candidates in wanted.items():
        if name not in entries:
            continue
        shard = Shard(corpus, entries[name])
        ids = {candidate.id: candidate for candidate in candidates}
        for number in range(len(shard)):
            told = shard.told(number)
            if isinstance(told, StreamLabels) and told.id in ids:
                written = _as_written(ids[told.id], told)
                yield _Found(f"{shard.path} record {number}", written, admitted=True)


def _as_written(candidate: Candidate, told: StreamLabels) -> Candidate:
    """The candidate with the timeline and the history that its shard holds."""
    history = tuple(Note(**note) for note in told.history)
    return replace(candidate, timeline=told.timeline, history=history)


# As text


def _refused_lines(line: Mapping[str, Any]) -> list[str]:
    head = [f"{line['where']}: refused", f"  {PLAN}: {_reason(line['reason'], line['detail'])}"]
    if "candidate" not in line:
        return head
    candidate = candidate_from_json(line["candidate"])
    return [*head, *_events(candidate)]


def _candidate_lines(one: _Found, children: list[str]) -> list[str]:
    candidate, timeline = one.candidate, one.candidate.timeline
    status = "admitted" if one.admitted else candidate.status
    clip = timeline.clip
    length = "of unknown length" if clip.duration is None else f"{clip.duration:.10g} s"
    items = candidate.work.get("items") or ()
    lines = [
        f"{candidate.id}: {status}",
        f"  where: {one.where}",
        f"  made of: {'; '.join(map(str, items)) or 'nothing that is named'}",
        f"  clip: {clip.id}, {length}" + (f", from {clip.offset} s on" if clip.offset else ""),
        f"  {timeline.family}, {timeline.source}, {candidate.language}, for {candidate.use}, "
        f"licence {candidate.licence or 'not known'}",
    ]
    if "parent" in candidate.work:
        lines.append(f"  parent: {candidate.work['parent']}")
    if children:
        lines.append(f"  children: {', '.join(sorted(children))}")
    lines += _events(candidate)
    lines += [f"  memory of [{s}, {t}) s: {text}" for s, t, text in candidate.summaries]
    lines.append("  history:")
    for note in candidate.history:
        told = _reason(note.reason, note.detail)
        agent = f" ({note.agent})" if note.agent else ""
        lines.append(f"    {note.stage}: {note.verdict}{': ' if told else ''}{told}{agent}")
    return lines if candidate.history else [*lines, "    nothing was done to it"]


def _reason(reason: str, detail: str) -> str:
    return ": ".join(part for part in (reason, detail) if part)


def _events(candidate: Candidate) -> list[str]:
    events = sorted(candidate.timeline.events, key=lambda event: event.time)
    opening = [f"  before: {candidate.timeline.opening}"] if candidate.timeline.opening else []
    return [*opening, *map(_event, events)]


def _event(event: Event) -> str:
    until = "" if event.until is None else f" to {event.until:.10g}"
    handed = "" if event.question is None else f" [delegates: {event.question}]"
    return f"  {event.time:.10g}{until} s {event.role}: {event.text}{handed}"
