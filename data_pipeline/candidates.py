"""What flows through the corpus pipeline: candidates, with all that was done to each.

A source yields candidates, a stage maps an iterator of them to an iterator of them, and none is
ever dropped on the way: what a stage refuses flows on as it is, with its reason, to the rejects.

    candidates = localize(precheck(propose(source)))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from joyvl_train.timeline import Timeline, TimelineError, from_json, to_json

Verdict = Literal["kept", "changed", "rejected", "unverified"]
Status = Literal["open", "rejected", "unverified"]
Use = Literal["train", "evaluation"]
Stage = Callable[[Iterator["Candidate"]], Iterator["Candidate"]]

CORRUPTION = "corruption"
"""The stage that damages timelines on purpose (`data_pipeline.corruption`), by its name in
histories: what it did begins with the kind of damage, "wrong count: ..."."""

EVALUATION: Use = "evaluation"
"""The use of what stems from a benchmark: it never enters training."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one stage did to a candidate.

    `reason` is a short fixed phrase that is counted, `detail` what it rests on. `agent` names the
    agent that was asked, with the hash of its prompt, "window_verifier@1f0c33a9".
    """

    stage: str
    verdict: Verdict
    reason: str = ""
    detail: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One timeline on its way into a corpus.

    `id` is a hash of what it was made from (`id_of`), so that equal input gives equal ids. `work`
    carries plain data from one stage to a later one (a window, a target, what was said in the sound
    track); it is not written to the corpus. `licence` is that of the footage.
    """

    id: str
    timeline: Timeline
    use: Use = "train"
    licence: str = ""
    language: str = "en"
    work: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Note, ...] = ()
    summaries: tuple[tuple[int, int, str], ...] = ()
    """Memory text by stretch of seconds, [start, stop), for clips longer than a chunk."""

    def __post_init__(self) -> None:
        if self.use not in get_args(Use):
            raise ValueError(f"use {self.use!r} is none of {get_args(Use)}")

    @property
    def status(self) -> Status:
        """Open until a stage has rejected it or could not verify it; both are final."""
        last = self.history[-1].verdict if self.history else "kept"
        return last if last in ("rejected", "unverified") else "open"

    @property
    def damage(self) -> str:
        """How it was damaged on purpose, "wrong count"; empty where it wasn't."""
        notes = (note for note in self.history if note.stage == CORRUPTION)
        return next((note.detail.partition(":")[0] for note in notes), "")

    @property
    def reason(self) -> str:
        """Why it is not open; empty where it is."""
        return "" if self.status == "open" else self.history[-1].reason

    def kept(self, stage: str, detail: str = "", agent: str = "") -> Candidate:
        """Looked at by `stage` and left as it is."""
        return self._noted(Note(stage, "kept", "", detail, agent))

    def changed(
        self,
        stage: str,
        timeline: Timeline | None = None,
        detail: str = "",
        agent: str = "",
        **others: Any,
    ) -> Candidate:
        """With another timeline or other fields, by `stage`."""
        if timeline is not None:
            others["timeline"] = timeline
        return replace(self, **others)._noted(Note(stage, "changed", "", detail, agent))

    def rejected(self, stage: str, reason: str, detail: str = "", agent: str = "") -> Candidate:
        """Refused for good by `stage`."""
        return self._noted(Note(stage, "rejected", reason, detail, agent))

    def unverified(self, stage: str, reason: str, detail: str = "", agent: str = "") -> Candidate:
        """Kept apart: `stage` could not come to a verdict; it is never admitted."""
        return self._noted(Note(stage, "unverified", reason, detail, agent))

    def _noted(self, note: Note) -> Candidate:
        if self.status != "open":
            raise ValueError(f"candidate {self.id} is {self.status}; {note.stage} can't note it")
        return replace(self, history=(*self.history, note))


@dataclass(frozen=True, slots=True)
class Refused:
    """An item of a source that never became a candidate. `where` names the item."""

    where: str
    reason: str
    detail: str = ""


def id_of(*made_from: Any) -> str:
    """32 hexadecimal digits that stand for plain data: the content hash of a video, the record of
    an annotation, the seed of a scene, and the name and version of what turned it into a clip."""
    text = json.dumps(made_from, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def each_open(
    name: str, do: Callable[[Candidate], Candidate], candidates: Iterable[Candidate]
) -> Iterator[Candidate]:
    """`do` on each candidate that is open; the others flow on as they are.

    A `TimelineError`, such as of a picture that can't be decoded, rejects its candidate with its
    reason.
    """
    for candidate in candidates:
        if candidate.status != "open":
            yield candidate
            continue
        try:
            yield do(candidate)
        except TimelineError as error:
            yield candidate.rejected(name, error.reason, error.detail)


def candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    """Plain data for a JSON line; `candidate_from_json` reads it back to an equal candidate."""
    plain = {k: getattr(candidate, k) for k in ("id", "use", "licence", "language")}
    plain["timeline"] = to_json(candidate.timeline)
    plain["work"] = dict(candidate.work)
    plain["history"] = [asdict(note) for note in candidate.history]
    plain["summaries"] = [list(summary) for summary in candidate.summaries]
    return plain


def candidate_from_json(data: Mapping[str, Any]) -> Candidate:
    """The candidate of a JSON line. `TimelineError` "shape" where it isn't one."""
    try:
        rest = {k: data[k] for k in ("id", "use", "licence", "language", "work")}
        return Candidate(
            timeline=from_json(data["timeline"]),
            history=tuple(Note(**note) for note in data["history"]),
            summaries=tuple((s, e, text) for s, e, text in data["summaries"]),
            **rest,
        )
    except TimelineError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TimelineError("shape", f"{type(error).__name__}: {error}") from error
