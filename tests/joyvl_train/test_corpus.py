"""Clips that are parts of their videos, opened from annotations and from shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from joyvl_train.corpus import FrameSource, open_corpus
from joyvl_train.corpus_samples import CorpusClips
from joyvl_train.frames import FirstSeconds, open_video
from joyvl_train.records import Rejects, StreamLabels
from joyvl_train.shards import read_shards, write_shards
from joyvl_train.sides import Side
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError, to_json
from joyvl_train.video import FrameError

from .videos import make_video, number_of

LENGTH = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_video(folder / "a.mp4", [k / 3 for k in range(3 * LENGTH)], g="12")
    return folder


def clip(offset: int, duration: float | None, at: float = 2.5) -> Timeline:
    events = (Event("r", at, "assistant", "Now."),)
    made = Clip("c", duration, video="a.mp4", offset=offset)
    return Timeline(made, "alerting", "made", events)


@pytest.mark.parametrize("duration", [12.0, 11.25, None])
def test_seconds_of_a_clip_are_those_of_its_video(folder, tmp_path, duration):
    source = FrameSource(folder, tmp_path, 2)
    whole = open_video(folder / "a.mp4", 2, cache_dir=tmp_path / "whole")
    timeline = clip(70, duration)
    frames = source.frames(timeline)
    assert frames.seconds == (30 if duration is None else 12)
    assert [frames.encoded(t) for t in range(12)] == [whole.encoded(70 + t) for t in range(12)]
    # As shards, and as annotations that training reads.
    write_shards([(StreamLabels(timeline), frames)], tmp_path / "s")
    ((told, stored),) = read_shards(tmp_path / "s")
    assert told.timeline.clip.offset == 70 and stored.seconds == frames.seconds
    assert [stored.encoded(t) for t in range(12)] == [whole.encoded(70 + t) for t in range(12)]
    (tmp_path / "t.jsonl").write_text(json.dumps(to_json(timeline)) + "\n")
    ((_, read),) = open_corpus(
        tmp_path / "t.jsonl", folder, cache_dir=tmp_path / "c", frames_per_second=2
    )
    assert read.seconds == frames.seconds and not isinstance(read, FirstSeconds)
    assert [number_of(i) for t in range(12) for i in read.frames(t)] == [
        number_of(i) for t in range(70, 82) for i in whole.frames(t)
    ]


def test_labels_alone_in_shards_find_the_clips_pictures(folder, tmp_path):
    write_shards([(StreamLabels(clip(70, 12.0)), None)], tmp_path / "s")
    ((told, frames),) = open_corpus(tmp_path / "s", folder, cache_dir=tmp_path / "c")
    assert told.timeline == clip(70, 12.0)
    assert [number_of(frames.frames(t)[0]) for t in range(12)] == [
        (3 * (71 + t) - 1) % 25 for t in range(12)
    ]


@pytest.mark.parametrize("stored", ["json", "shards"])
def test_a_timeline_is_read_without_a_look_at_the_video(folder, tmp_path, monkeypatch, stored):
    timelines = [clip(70, 12.0), replace(clip(70, None), family="qa")]
    if stored == "json":
        path = tmp_path / "t.jsonl"
        path.write_text("".join(json.dumps(to_json(each)) + "\n" for each in timelines))
    else:
        path = tmp_path / "s"
        write_shards([(StreamLabels(each), None) for each in timelines], path)
    corpus = open_corpus(path, folder, cache_dir=tmp_path / "c")
    clips = CorpusClips(Side(corpus, "train", 0.0, Rejects()))
    # How long the second one lasts is known from its video alone.
    assert clips.timeline(1) == clips[1][0] and clips.timeline(1).clip.seconds == 30

    def refuse(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("joyvl_train.corpus.open_video", refuse)
    assert clips.timeline(0) == clip(70, 12.0)
    without = Side(corpus, "train", 0.0, Rejects(), ("qa",))
    with pytest.raises(TimelineError, match="family left out"):
        CorpusClips(without).timeline(1)
    assert without.rejects.counts == {"family left out": 1}
    clips.reject(0, FrameError("damaged", "second 3"))
    assert clips._corpus.rejects.counts == {"damaged": 1}


@pytest.mark.parametrize(("offset", "at"), [(95, 7.0), (100, 2.5), (4000, 2.5)])
def test_what_lies_past_the_end_of_the_video_is_rejected(folder, tmp_path, offset, at):
    (tmp_path / "t.jsonl").write_text(json.dumps(to_json(clip(offset, None, at))) + "\n")
    corpus = open_corpus(tmp_path / "t.jsonl", folder, cache_dir=tmp_path / "c")
    with pytest.raises(TimelineError):
        corpus[0]
    assert corpus.rejects.counts == {"past the end": 1}
