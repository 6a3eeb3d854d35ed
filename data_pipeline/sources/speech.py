"""The speech of a video's own sound track -> a commentary that keeps the speaker's pauses.

What is said comes from `transcribe`, any function from a video file to segments (start, stop,
text). Segments that no pause parts are joined up to the end of the sentence; each such utterance is
one response, due when the speaker begins it and held while it lasts. An item is a segment, or a
video in which nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.items import candidate, record_id, refused, said_of, sound, span_of
from data_pipeline.sources.videos import Videos, check_no_folder, is_video, video_path
from data_pipeline.sources.wordings import COMMENT, asked_at, ends_sentence, pick
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

SOURCE = "speech"
PAUSE = 0.6
"""Seconds of silence that end an utterance in the middle of a sentence."""

LONGEST = 12.0
"""Seconds of speech after which an utterance ends at the next segment, whatever is said."""

Transcribe = Callable[[Path], Iterable[tuple[float, float, str]]]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said in one go, and the segments that it was joined from."""

    start: float
    stop: float
    text: str
    items: tuple[str, ...]


def read(
    videos: Videos,
    transcribe: Transcribe,
    language: str = "en",
    licence: str = "",
    pause: float = PAUSE,
    longest: float = LONGEST,
) -> Iterator[Candidate | Refused]:
    """The videos of a folder in which someone speaks, as commentaries in `language`.

    A `TimelineError` of `transcribe` (no sound track) refuses its video. Files that are no videos
    by their names are passed over; a folder that can't be gone into is refused.
    """
    for path in videos.files():
        name = path.relative_to(videos.root).as_posix()
        try:
            check_no_folder(path, name)
            if not is_video(path):
                continue
            video = video_path(name, "file")
            clip = Clip(video, videos.duration(video), video=video)
            segments = list(transcribe(path))
            if not segments:
                raise TimelineError("no speech", repr(name))
        except TimelineError as error:
            yield refused(name, error)
            continue
        yield from commentary(clip, segments, language, licence, pause, longest)


def commentary(
    clip: Clip,
    segments: Sequence[Any],
    language: str = "en",
    licence: str = "",
    pause: float = PAUSE,
    longest: float = LONGEST,
) -> Iterator[Candidate | Refused]:
    """The commentary of one clip from its segments; those that are broken are refused."""
    sound_ones: list[Utterance] = []
    for n, segment in enumerate(segments):
        where = f"{clip.id} segment {n}"
        try:
            sound_ones.append(_segment(segment, clip, where))
        except TimelineError as error:
            yield refused(where, error)
    said = utterances(sound_ones, pause, longest, space_of(language))
    if not said:
        return
    told = [[one.start, one.stop, one.text] for one in said]
    id = record_id(SOURCE, [clip.video or clip.id, language, told])
    asked = Event("q0", float(asked_at(id, said[0].start)), "user", pick(COMMENT, id))
    responses = [
        Event(
            f"r{n}",
            one.start,
            "assistant",
            one.text,
            until=one.stop,
            answers="q0",
            rule=Rule("similarity"),
        )
        for n, one in enumerate(said)
    ]
    items = [item for one in said for item in one.items]
    try:
        timeline = Timeline(clip, "commentary", SOURCE, (asked, *responses))
        yield sound(candidate(id, timeline, items, licence=licence, language=language))
    except TimelineError as error:
        yield from (refused(item, error) for item in items)


def _segment(segment: Any, clip: Clip, where: str) -> Utterance:
    if not isinstance(segment, Sequence) or isinstance(segment, str) or len(segment) != 3:
        raise TimelineError("shape", f"{where} is no (start, stop, text)")
    start, stop = span_of([*segment[:2]], where)
    if clip.duration is not None and start >= clip.duration:
        raise TimelineError("past the end", f"{where}: {start} s of {clip.duration:.3f} s")
    return Utterance(start, stop, said_of(segment[2], where), (where,))


def space_of(language: str) -> str:
    """What stands between two segments that are joined: nothing where words aren't parted."""
    return "" if language.partition("-")[0] in ("ja", "km", "lo", "my", "th", "zh") else " "


def utterances(
    segments: Iterable[Utterance], pause: float = PAUSE, longest: float = LONGEST, space: str = " "
) -> list[Utterance]:
    """Segments joined into utterances, of which no two begin in one second."""
    said: list[Utterance] = []
    for segment in sorted(segments, key=lambda one: (one.start, one.stop)):
        last = said[-1] if said else None
        if last is None or not (
            int(last.start) == int(segment.start)
            or (
                segment.start - last.stop < pause
                and segment.stop - last.start <= longest
                and not ends_sentence(last.text)
            )
        ):
            said.append(segment)
            continue
        said[-1] = replace(
            last,
            stop=max(last.stop, segment.stop),
            text=last.text + space + segment.text,
            items=last.items + segment.items,
        )
    return said
