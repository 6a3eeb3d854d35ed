"""recipe=corpus command=export: a corpus goes out in the published form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_pipeline.candidates import EVALUATION, Candidate
from data_pipeline.sources.published import write_published as write_raw
from joyvl_train.config import Config, UserError
from joyvl_train.corpus import open_corpus
from joyvl_train.frames import Frames
from joyvl_train.published import read_published, write_published
from joyvl_train.records import RecordError, Rejects, StreamLabels, TurnSample
from joyvl_train.run import Run
from joyvl_train.shard_reader import Shard, read_index
from joyvl_train.timeline import Timeline, TimelineError
from recipes._world import draw, rate

DATA = "data.json"
REJECTS = "rejects.jsonl"
NO_STREAM = "no stream"
"""Why a turn-based sample stays behind: the form tells of streams alone."""
NO_TRAINING = "evaluation only"
"""Why a benchmark's record stays behind where the form has no place to say that it is one."""


def export(config: Config, run: Run) -> None:
    """Writes the records of data.path, by default of the latest corpus, into run.dir."""
    place = _corpus(config)
    (run.dir / REJECTS).unlink(missing_ok=True)  # of an export that was broken off
    rejects = Rejects(run.dir / REJECTS)
    if config.corpus.form == "raw":
        written = write_raw(_candidates(place, rejects), run.dir / DATA, rejects)
    else:
        records = _with_pictures(config, place, rejects)
        written = write_published(records, run.dir, rejects, config.corpus.quality)
    counts = {
        "export/read": written + rejects.total,
        "export/written": written,
        "export/rejected": rejects.total,
    }
    for reason, count in sorted(rejects.counts.items()):
        counts[f"export/rejected/{reason.replace(' ', '_')}"] = count
    run.metrics(counts)
    run.say(f"{place}: {written} records written to {run.dir / DATA}, {rejects}")
    run.finish(latest=False)


def _corpus(config: Config) -> Path:
    """What is to go out."""
    if config.data.kind == "path":
        place = Path(config.data.path)
        if not config.data.path or not place.exists():
            raise UserError(f"data.path={config.data.path}: is not there; mend the path")
        return place
    place = Path(config.run.root) / "latest" / "corpus" / "corpus"
    if not place.exists():
        raise UserError(
            "data.path is empty, and no run of recipe=corpus has finished; name the corpus that is "
            "to go out, data.path=DIR"
        )
    return place


def _candidates(place: Path, rejects: Rejects) -> Iterator[Candidate]:
    """The timelines of a corpus, read without a picture."""
    if place.is_file():
        for number, timeline in enumerate(read_published(place, rejects)):
            yield Candidate(f"{timeline.clip.id} {number}", timeline)
        return
    for entry in read_index(place)["shards"]:
        names = [f"{entry['name']} record {number}" for number in range(entry["records"])]
        try:
            shard = Shard(place, entry)
        except RecordError as error:
            for where in names:
                rejects.add(where, error.reason, error.detail)
            continue
        for number, where in enumerate(names):
            try:
                told = shard.told(number)
                if isinstance(told, TurnSample):
                    raise TimelineError(NO_STREAM, told.id)
            except TimelineError as error:
                rejects.add(where, error.reason, error.detail)
            else:
                yield _candidate(told)


def _candidate(labels: StreamLabels) -> Candidate:
    """A corpus's record as a candidate again. Its timeline says itself where it is for evaluation
    alone: `use` doesn't go along."""
    timeline = labels.timeline
    if labels.use == EVALUATION:
        timeline = replace(timeline, meta={**timeline.meta, "use": EVALUATION})
    return Candidate(
        labels.id,
        timeline,
        licence=labels.licence,
        language=labels.language,
        summaries=tuple((each.start, each.stop, each.text) for each in labels.summaries),
    )


def _with_pictures(
    config: Config, place: Path, rejects: Rejects
) -> Iterator[tuple[Timeline, Frames]]:
    """The timelines of a corpus with their pictures, data.frames_per_second of them a second."""
    value = config.data.frames_per_second
    size = config.corpus.size or None
    corpus = open_corpus(
        place,
        config.data.image_root or None,
        cache_dir=config.data.cache_dir,
        frames_per_second="auto" if value == "auto" else int(rate(config)),
        size=size,
        rejects=rejects,
        render=partial(draw, side=size or config.data.size),
    )
    for number in range(len(corpus)):
        try:
            sample = corpus[number]
        except RecordError:
            continue  # it is among the rejects
        if isinstance(sample, TurnSample):
            rejects.add(corpus.where(number), NO_STREAM, sample.id)
            continue
        labels, frames = sample
        if labels.use == EVALUATION:
            detail = "chats don't say what is never to be trained on; take corpus.form=raw"
            rejects.add(corpus.where(number), NO_TRAINING, f"{labels.id}: {detail}")
            continue
        yield labels.timeline, frames
