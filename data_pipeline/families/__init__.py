"""The families of the corpus, a module each: how its timelines are made, stage by stage.

`NAME.stages(desk, ...)` gives the stages in order, each with its name, which stands in histories
and in the funnel. A stage works on the candidates that are its own and lets all others by, so that
the stages of several families may follow one another and one source may feed them all:

    steps = [share_out(("alerting", "qa")), *alerting.stages(desk), *qa.stages(desk)]
    made = chained(steps, source)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from data_pipeline.candidates import Candidate, Stage, id_of
from data_pipeline.desk import Desk
from data_pipeline.sources.folder import FAMILY as UNLABELLED
from joyvl_train.timeline import Timeline, TimelineError

Step = tuple[str, Stage]
"""A stage with its name."""

Own = Callable[[Candidate], bool]
"""Whether a candidate is a stage's own."""

SPLIT = "split"
"""Why a candidate that others were made of, and that has nothing of its own to tell, ends."""


def chained(steps: Iterable[Step], candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The candidates through all stages, in order."""
    flow = iter(candidates)
    for _, stage in steps:
        flow = stage(flow)
    return flow


def looking(desk: Desk, name: str, own: Own, do: Callable[[Candidate], Candidate]) -> Step:
    """A stage that asks nobody."""

    def one(candidate: Candidate) -> Candidate:
        return do(candidate) if own(candidate) else candidate

    return name, desk.looking(name, one)


def asking(
    desk: Desk, name: str, own: Own, do: Callable[[Candidate], Awaitable[Candidate]]
) -> Step:
    """A stage that asks agents, about many candidates at a time."""

    async def one(candidate: Candidate) -> Candidate:
        return await do(candidate) if own(candidate) else candidate

    return name, desk.asking(name, one)


def splitting(name: str, own: Own, do: Callable[[Candidate], list[Candidate]]) -> Step:
    """A stage that makes several candidates of one; `do` ends with `split_into`."""

    def stage(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for candidate in candidates:
            if candidate.status != "open" or not own(candidate):
                yield candidate
                continue
            try:
                made = do(candidate)
            except TimelineError as error:
                made = [candidate.rejected(name, error.reason, error.detail)]
            yield from made

    return name, stage


def child_of(
    parent: Candidate,
    stage: str,
    made_from: Any,
    timeline: Timeline,
    detail: str = "",
    **work: Any,
) -> Candidate:
    """One of the candidates that `stage` makes of `parent`.

    `made_from` is plain data that tells it from its siblings; its id hangs on that and on the
    parent's. It has the parent's history, and the parent's work with `work` on top. Memory text
    that was written for the parent is not its own.
    """
    child = replace(
        parent,
        id=id_of(parent.id, stage, made_from),
        work={**parent.work, **work, "parent": parent.id},
        summaries=(),
    )
    return child.changed(stage, timeline, detail)


def split_into(
    stage: str, parent: Candidate, children: Sequence[Candidate], none: str = "nothing in it"
) -> list[Candidate]:
    """What stands in the place of `parent`: itself, then its children, so that counts add up.

    A parent that has something to tell stays as it is. One without events ends as rejected: with
    the reason "split", or with the reason `none` where there are no children.
    """
    ids = {parent.id, *(child.id for child in children)}
    if len(ids) <= len(children):
        raise ValueError(f"{stage}: two of the children of candidate {parent.id} have one id")
    told = f"{len(children)} made of it" if children else ""
    if not parent.timeline.events:
        return [parent.rejected(stage, SPLIT if children else none, told), *children]
    return [parent.kept(stage, told) if children else parent, *children]


def of_family(family: str) -> Own:
    """Those of one family."""

    def own(candidate: Candidate) -> bool:
        return candidate.timeline.family == family

    return own


def share_out(families: Sequence[str]) -> Step:
    """Footage without events becomes one candidate for each family that is to be made of it."""
    name = "families"

    def shared(candidate: Candidate) -> list[Candidate]:
        timeline = candidate.timeline
        children = [
            child_of(candidate, name, family, replace(timeline, family=family), family)
            for family in families
        ]
        return split_into(name, candidate, children)

    def own(candidate: Candidate) -> bool:
        return candidate.timeline.family == UNLABELLED and not candidate.timeline.events

    return splitting(name, own, shared)
