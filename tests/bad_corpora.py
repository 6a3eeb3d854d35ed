"""Rows of the table in `test_bad_input`: what users of recipe=corpus get wrong."""

from __future__ import annotations

from collections.abc import Callable

from tests.bad_places import Place

CORPUS = ["recipe=corpus", "setting=smoke"]


def corpus(place: Place, *overrides: str) -> list[str]:
    """A corpus of a folder with one video, seconds long where nothing is wrong."""
    videos = place.folder / "videos"
    videos.mkdir(exist_ok=True)
    place.video("videos/a.mp4")
    places = [f"run.{key}={place.folder / key}" for key in ("dir", "root")]
    return [*CORPUS, *places, f"source.videos={videos}", *overrides]


def table_of_events(place: Place, text: str) -> list[str]:
    path = place.folder / "events.csv"
    path.write_text(text)
    return corpus(place, "source=events", f"source.annotations={path}")


CORPUS_ROWS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "unknown source": (
        lambda p: corpus(p, "source=charades"),
        r"there is no such source; it is one of .* Did you mean charades_sta",
    ),
    "unknown command of a corpus": (
        lambda p: corpus(p, "command=evaluate"),
        r"command=evaluate: recipe=corpus has run, convert, export, codec and inspect",
    ),
    "a corpus of a corpus": (
        lambda p: corpus(p, "data.path=x"),
        r"data.path=x: recipe=corpus writes a corpus and reads none; name what it is made of",
    ),
    "no annotations": (
        lambda p: corpus(p, "source=events"),
        r"source.annotations is empty: name the file, source.annotations=FILE",
    ),
    "annotations that are not there": (
        lambda p: corpus(p, "source=qvhighlights", "source.annotations=none.jsonl"),
        r"source.annotations=none.jsonl: is not there; mend the path",
    ),
    "no folder of videos": (
        lambda p: [*table_of_events(p, "video,start,text\n"), "source.videos="],
        r"source.videos is empty: name the folder that the videos lie in",
    ),
    "missing folder of videos": (
        lambda p: [*table_of_events(p, "video,start,text\n"), "source.videos=nowhere"],
        r"source.videos=nowhere: is no folder; mend the path",
    ),
    "table without a column": (
        lambda p: table_of_events(p, "video,begin,text\na.mp4,1,Well.\n"),
        r"names the columns video, begin, text; add start",
    ),
    "videos alone without agents": (
        lambda p: corpus(p, "source=folder"),
        r"source=folder: on videos without annotations .* name an endpoint \(agents.url=",
    ),
    "agents wanted that are not named": (
        lambda p: corpus(p, "source=world", "corpus.verify=agents"),
        r"corpus.verify=agents: agents.url is empty; name an endpoint",
    ),
    "endpoint without a model": (
        lambda p: corpus(p, "source=folder", "agents.url=http://127.0.0.1:1/v1"),
        r"agents.model is empty: name the model that http://127.0.0.1:1/v1 serves",
    ),
    "no prompts where they are said to be": (
        lambda p: corpus(p, "source=world", "agents.url=x", "agents.model=m", "agents.prompts=x"),
        r"x/.*md: the prompt can't be read",
    ),
    "no run to keep apart from": (
        lambda p: corpus(p, "source=world", f"corpus.apart_from=[{p.folder}]"),
        r"corpus.apart_from=.*: is no finished run of recipe=corpus; make one of the benchmark",
    ),
    "shares above the whole": (
        lambda p: corpus(p, "corpus.family_shares.qa=0.7", "corpus.family_shares.chat=0.7"),
        r"balance: the shares of families are to be 0 or more and come to at most 1",
    ),
    "Slurm without a partition": (
        lambda p: corpus(p, "executor.kind=slurm"),
        r"executor.partition is empty: name one of Slurm's partitions",
    ),
    "nothing to convert": (
        lambda p: corpus(p, "command=convert", "source=folder"),
        r"source=folder: has no annotations to convert; take one of",
    ),
    "no id to look into": (
        lambda p: corpus(p, "command=inspect"),
        r"id is empty: name a record, id=",
    ),
    "no corpus to look into": (
        lambda p: corpus(p, "command=inspect", "id=0123456789"),
        r"is no run of recipe=corpus; name one, run.dir=DIR",
    ),
}
