"""What `data.path` names, as a list of samples: corpus shards, or published JSON with its files."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from joyvl_train.frames import (
    FirstSeconds,
    Frames,
    ImageFrames,
    Rate,
    Size,
    check_view,
    inside,
    open_video,
)
from joyvl_train.json_items import json_items, parse
from joyvl_train.published import EVALUATION_ONLY, timeline_of, told_clip
from joyvl_train.records import (
    RecordError,
    Rejects,
    StreamLabels,
    TurnSample,
    footage,
    footage_number,
    settle,
)
from joyvl_train.shard_reader import CorpusError, Shard, file_hash, read_index
from joyvl_train.timeline import Clip, Timeline, TimelineError
from joyvl_train.video import FrameError

Labels = StreamLabels | TurnSample
Sample = tuple[StreamLabels, Frames] | TurnSample
T = TypeVar("T")

_OPEN_SHARDS = 32


@dataclass(frozen=True)
class FrameSource:
    """Where the pictures of a clip come from, and how they are wanted.

    Videos and pictures lie under `root`; decoded videos are kept in `cache_dir`. `render` draws
    clips of the rendered world, where a corpus holds any as scenes.
    """

    root: Path
    cache_dir: Path
    frames_per_second: Rate = 1
    size: Size = None
    multiple: int = 1
    render: Callable[[Clip], Frames] | None = None

    def __post_init__(self) -> None:
        check_view(self.frames_per_second, self.size, self.multiple, 90)

    def frames(self, timeline: Timeline) -> Frames:
        """The pictures of a timeline's clip. `FrameError` where they can't be had."""
        clip = timeline.clip
        if clip.images:
            pictures = ImageFrames(
                clip.images,
                timeline.frames_per_second,
                self.frames_per_second,
                root=self.root,
                size=self.size,
                multiple=self.multiple,
            )
            pictures.check()
            return pictures
        if clip.video is not None:
            return open_video(
                inside(self.root, clip.video),
                self.frames_per_second,
                cache_dir=self.cache_dir,
                size=self.size,
                multiple=self.multiple,
                start=clip.offset,
                duration=clip.duration,
            )
        if clip.scene is not None and self.render is not None:
            return self.render(clip)
        raise FrameError("no source", f"clip {clip.id!r} names no pictures that can be opened")


@dataclass(frozen=True)
class Unread:
    """A record that is rejected before its pictures are looked at; footage: None if unknown."""

    where: str
    reason: str
    detail: str
    footage: int | None


@dataclass
class Survey:
    """What a corpus tells of itself without a look at its pictures.

    footage: by number, the bits that stand for what is seen (`records.footage_number`); questions:
    the numbers of turn-based samples; evaluation: the numbers of records that are never trained on;
    broken: the numbers of records that can't be read, of which `unread` names each, beside those
    that have no number.
    """

    footage: array[int] = field(default_factory=lambda: array("Q"))
    questions: set[int] = field(default_factory=set)
    evaluation: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    unread: list[Unread] = field(default_factory=list)

    @property
    def reserved(self) -> set[int]:
        """The footage of what is for evaluation, of records refused for that among them."""
        refused = (each.footage for each in self.unread if each.reason == EVALUATION_ONLY)
        read = (self.footage[number] for number in self.evaluation)
        return {footage for footage in (*refused, *read) if footage is not None}


class Corpus(ABC):
    """Samples by number: `corpus[i]` is a stream with its frames, or a turn-based sample.

    A sample that can't be used raises `RecordError`, and is counted and kept in `rejects`; a
    sampler goes on with another one. Iterating leaves those out. Safe to pickle for workers.
    `name` is what a user called it; `digest` changes wherever a record does.
    """

    apart = ""
    """What is kept apart from it, for messages."""

    def __init__(self, rejects: Rejects, name: str, digest: str) -> None:
        self.rejects = rejects
        self.name = name
        self.digest = digest

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _load(self, number: int) -> Sample:
        """The sample; `__getitem__` counts it where it can't be used."""

    @abstractmethod
    def where(self, number: int) -> str:
        """The name of a sample in the rejects."""

    @abstractmethod
    def survey(self) -> Survey:
        """What there is, from the records' texts alone; worked out once."""

    @abstractmethod
    def _told(self, number: int) -> Labels:
        """What the record of a sample says."""

    def __getitem__(self, number: int) -> Sample:
        return self._counted(number, self._load)

    def told(self, number: int) -> Labels:
        """What the record of a sample says, without a look at its pictures: of a stream not how
        long it is, where the record says nothing of it or too much. Raises as `corpus[number]`."""
        return self._counted(number, self._told)

    def _counted(self, number: int, read: Callable[[int], T]) -> T:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        try:
            return read(number)
        except TimelineError as error:
            self.rejects.add(self.where(number), error.reason, error.detail)
            raise RecordError(error.reason, f"{self.where(number)}: {error.detail}") from None

    def __iter__(self) -> Iterator[Sample]:
        for number in range(len(self)):
            try:
                sample = self[number]
            except RecordError:
                continue
            yield sample


class ShardCorpus(Corpus):
    """A folder of shards (`joyvl_train.shards`)."""

    def __init__(self, directory: Path, source: FrameSource, rejects: Rejects) -> None:
        self.index = read_index(directory)
        hashes = [[entry["name"], entry.get("blake2b")] for entry in self.index["shards"]]
        super().__init__(rejects, str(directory), _digest(repr(hashes).encode()))
        self._directory = directory
        self._source = source
        self._ends: list[int] = []
        for entry in self.index["shards"]:
            self._ends.append(entry["records"] + (self._ends[-1] if self._ends else 0))
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._checked = bytearray(len(self))
        self._survey: Survey | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _place(self, number: int) -> tuple[int, int]:
        shard = bisect_right(self._ends, number)
        return shard, number - (self._ends[shard - 1] if shard else 0)

    def where(self, number: int) -> str:
        shard, record = self._place(number)
        return f"{self.index['shards'][shard]['name']} record {record}"

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            self._open[number] = Shard(self._directory, self.index["shards"][number])
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _load(self, number: int) -> Sample:
        source = self._source
        shard, record = self._place(number)
        view = (source.frames_per_second, source.size, source.multiple)
        # Once whole is enough: a picture is checked again when it is read.
        sample = self._shard(shard).read(record, *view, check=not self._checked[number])
        self._checked[number] = True
        if isinstance(sample, TurnSample):
            return sample
        labels, frames = sample
        return _settled(labels, source.frames(labels.timeline) if frames is None else frames)

    def _told(self, number: int) -> Labels:
        shard, record = self._place(number)
        return self._shard(shard).told(record)

    def survey(self) -> Survey:
        if self._survey is None:
            self._survey = Survey()
            for number in range(len(self)):
                self._look_at(number, self._survey)
        return self._survey

    def _look_at(self, number: int, survey: Survey) -> None:
        shard, record = self._place(number)
        try:
            told = self._shard(shard).told(record)
        except TimelineError as error:
            survey.footage.append(0)
            survey.broken.add(number)
            survey.unread.append(Unread(self.where(number), error.reason, error.detail, None))
            return
        if isinstance(told, TurnSample):
            survey.questions.add(number)
        if told.use == "evaluation":
            survey.evaluation.add(number)
        survey.footage.append(footage_number(told.footage))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


class JsonCorpus(Corpus):
    """A JSON file of published records; its items are read through once, then found by place."""

    def __init__(self, path: Path, source: FrameSource, rejects: Rejects) -> None:
        try:
            super().__init__(rejects, str(path), file_hash(path))
        except OSError as error:
            raise CorpusError(f"{str(path)!r} can't be read: {error.strerror}") from None
        self._path = path
        self._source = source
        self._numbers = array("q")
        self._offsets = array("q")
        self._lengths = array("q")
        self._survey = Survey()
        for item in json_items(path):
            name = self._name(item.number)
            try:
                if item.error is not None:
                    raise item.error
                clip = timeline_of(item.data, name, source.root).clip
            except TimelineError as error:
                rejects.add(name, error.reason, error.detail)
                told = told_clip(item.data)
                shown = None if told is None else footage_number(footage(told, source.root))
                unread = Unread(name, error.reason, error.detail, shown)
                self._survey.unread.append(unread)
                continue
            self._survey.footage.append(footage_number(footage(clip, source.root)))
            self._numbers.append(item.number)
            self._offsets.append(item.offset)
            self._lengths.append(item.length)

    def _name(self, item: int) -> str:
        return f"{self._path.name} item {item}"

    def where(self, number: int) -> str:
        return self._name(self._numbers[number])

    def __len__(self) -> int:
        return len(self._offsets)

    def survey(self) -> Survey:
        return self._survey

    def timeline(self, number: int) -> Timeline:
        """The timeline alone, without a look at its pictures."""
        where = self.where(number)
        with self._path.open("rb") as file:
            file.seek(self._offsets[number])
            text = file.read(self._lengths[number])
        return timeline_of(parse(text, where), where, self._source.root)

    def _told(self, number: int) -> Labels:
        return StreamLabels(self.timeline(number))

    def _load(self, number: int) -> Sample:
        timeline = self.timeline(number)
        return _settled(StreamLabels(timeline), self._source.frames(timeline))


def unusable(corpus: Corpus) -> CorpusError:
    """The error of a corpus of which nothing is left to use."""
    rejects = corpus.rejects
    where = "" if rejects.path is None else f"; {rejects.path} names each"
    return CorpusError(
        f"data.path={corpus.name!r} holds no sample to use: {rejects}{corpus.apart}{rejects.first}"
        f"{where}"
    )


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def _settled(labels: StreamLabels, frames: Frames) -> tuple[StreamLabels, Frames]:
    """A record and its pictures, both of one length: a record may tell of a video's start alone."""
    timeline = settle(labels.timeline, frames)
    duration, seconds = timeline.clip.duration, timeline.clip.seconds
    assert duration is not None and seconds is not None, "a settled clip has a length"
    if timeline is not labels.timeline:
        labels = replace(labels, timeline=timeline)
    return labels, frames if seconds == frames.seconds else FirstSeconds(frames, duration)


def open_corpus(
    path: str | os.PathLike[str],
    image_root: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] = ".cache/joyvl",
    frames_per_second: Rate = 1,
    size: Size = None,
    multiple: int = 1,
    rejects: Rejects | None = None,
    render: Callable[[Clip], Frames] | None = None,
) -> Corpus:
    """The corpus that `path` names: a folder of shards, or a published `.json` or `.jsonl` file.

    Pictures and videos that records name lie under `image_root`, by default the folder of `path`.
    Raises `CorpusError` where there is no corpus, or nothing in it that can be used.
    """
    place = Path(path)
    rejects = Rejects() if rejects is None else rejects
    if not place.exists():
        raise CorpusError(f"data.path={os.fspath(path)!r} doesn't exist; mend the path")
    root = Path(image_root) if image_root is not None else place if place.is_dir() else place.parent
    if not root.is_dir():
        raise CorpusError(
            f"data.image_root={str(root)!r}: the folder of pictures doesn't exist; mend the path"
        )
    view = (frames_per_second, size, multiple, render)
    source = FrameSource(root.absolute(), Path(cache_dir).absolute(), *view)
    corpus: Corpus
    if place.is_dir():
        corpus = ShardCorpus(place.absolute(), source, rejects)
    else:
        corpus = JsonCorpus(place.absolute(), source, rejects)
    if not len(corpus):
        raise unusable(corpus)
    return corpus
