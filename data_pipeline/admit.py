"""The last phase on parts: what stays is handed to a writer of shards, what doesn't is kept apart.

rejects/00000.jsonl   the candidates of the part that aren't admitted, with their whole history
rejects/00000.json    counts, and the part's funnel, from its first stage to the last; written
last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.candidates import Candidate, candidate_from_json, candidate_to_json
from data_pipeline.funnel import Funnel, merged
from data_pipeline.lines import LinesWriter, read_lines, read_object
from data_pipeline.parts import Tick
from data_pipeline.settle import Settled
from joyvl_train.run import write_text

_VERSION = 1


class Shards(Protocol):
    """Writes a shard a part; pickled where other processes do it."""

    def done(self, part: int) -> bool:
        """Whether the part's shard is there and whole; cheap."""

    def __call__(self, part: int, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        """Writes the part's shard of the open `candidates`, and yields each as it came, or
        rejected where it can't be written, with the reason. The shard stands under its name when
        the last one is yielded."""


@dataclass
class Admission:
    """The work of the last phase on the parts of `settled`, whose shards `write` writes.

    `signature` names the settings of the shards.
    """

    settled: Settled
    folder: Path
    write: Shards
    signature: str

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).absolute()

    @property
    def key(self) -> str:
        """Stands for all that the files of the parts hang on."""
        text = json.dumps([_VERSION, self.settled.index["key"], self.signature])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def path(self, part: int, ending: str = "jsonl") -> Path:
        return self.folder / f"{part:05d}.{ending}"

    def told(self, part: int) -> dict[str, Any] | None:
        """What the part's index says; None while it isn't done."""
        index = read_object(self.path(part, "json"))
        if index is None or index.get("key") != self.key:
            return None
        return index if self.path(part).exists() and self.write.done(part) else None

    def done(self, part: int) -> bool:
        return self.told(part) is not None

    def __call__(self, part: int, tick: Tick) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        funnel = Funnel()
        with LinesWriter(self.path(part)) as rejects:

            def keep(candidate: Candidate) -> None:
                funnel.add(candidate)
                if candidate.status != "open":
                    rejects.add(candidate_to_json(candidate))

            def still_open() -> Iterator[Candidate]:
                for candidate in self.settled.of(part):
                    tick(1)
                    if candidate.status == "open":
                        yield candidate
                    else:
                        keep(candidate)

            for candidate in self.write(part, still_open()):
                keep(candidate)
        known = self.settled.work.told(part) or {}
        if funnel.read != known.get("candidates"):
            raise ValueError(f"part {part}: {funnel.read} candidates of {known.get('candidates')}")
        index = {
            "key": self.key,
            "admitted": funnel.status["open"],
            "rejected": rejects.lines,
            "funnel": funnel.to_json(),
        }
        write_text(self.path(part, "json"), json.dumps(index, indent=1) + "\n")

    def rejected(self, part: int) -> Iterator[Candidate]:
        """The candidates of a part that is done which weren't admitted."""
        return map(candidate_from_json, read_lines(self.path(part)))

    def funnel(self) -> Funnel:
        """Of the whole corpus, from the first item that was read on; all parts are done."""
        plan = self.settled.work.plan
        parts = (self.told(part) for part in range(len(plan.parts)))
        funnel = merged(told["funnel"] for told in parts if told is not None)
        funnel.add_plan(plan)
        return funnel
