"""The rendered world as a source: its streams, labelled exactly, one candidate each.

An item is a stream. Those of the held-out splits are for evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from data_pipeline.candidates import EVALUATION, Candidate
from data_pipeline.sources.items import candidate, record_id
from data_pipeline.world.pictures import PictureSets
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import BACKGROUNDS, FAMILIES, streams
from joyvl_train.timeline import from_json, to_json

SOURCE = "world"

LICENCES = {"drawn": "Apache-2.0", "photo": "GPL-2.0"}
"""Of the pictures; footage behind them keeps its own."""


def read(
    count: int,
    seed: int = 0,
    split: Split = "train",
    mix: Sequence[str] | Mapping[str, float] = FAMILIES,
    pictures: PictureSets = "drawn",
    *,
    seconds: int | None = None,
    frames_per_second: float = 1.0,
    backgrounds: Sequence[str] | Mapping[str, float] = BACKGROUNDS,
) -> Iterator[Candidate]:
    """`count` streams; families by `mix`, names or name -> weight. Of a longer call the first ones
    are those of a shorter one."""
    made = streams(
        split,
        seed,
        count,
        mix,
        pictures,
        seconds=seconds,
        frames_per_second=frames_per_second,
        backgrounds=backgrounds,
    )
    for number, timeline in enumerate(made):
        # As plain data, so that it is equal to itself once it was stored.
        plain = json.loads(json.dumps(to_json(timeline)))
        yield candidate(
            record_id(SOURCE, plain),
            from_json(plain),
            f"world {split} {seed} {number}",
            use="train" if split == "train" else EVALUATION,
            licence=LICENCES["photo" if "-photo-" in timeline.clip.id else "drawn"],
        )
