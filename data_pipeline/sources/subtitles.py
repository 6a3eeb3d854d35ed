"""Subtitles (SRT, WebVTT) -> someone who reads, comments or translates line by line.

A file belongs to the video of its name ("talk.srt" or "talk.en.srt" to "talk.mp4"). An item is a
cue, or a file without any. Each cue is one response: due when it appears and held while it is
shown, or, where the words are heard and not seen (`due="end"`), when they have been said.

A cue in a second that is taken is put into the next one while it is still shown (`meta` counts
these as `shifted_cues`), else refused; one that begins while another is shown is kept
(`overlapping_cues`); the same text going on is no new cue ("said already"). Byte order marks, line
ends of any kind, styles and tags are taken off.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.items import (
    candidate,
    record_id,
    refused,
    said_of,
    sound,
    time_of,
)
from data_pipeline.sources.videos import SUFFIXES, Videos, check_no_folder, is_video, video_path
from data_pipeline.sources.wordings import COMMENT, READ, TRANSLATE, asked_at, language_name, pick
from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError
from joyvl_train.video import regular_file

SOURCE = "subtitles"
MAX_BYTES = 1 << 24

Task = Literal["read", "comment", "translate"]
Due = Literal["start", "end"]

_ENDINGS = (".srt", ".vtt")
_LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?$")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d+:\d\d[^<>]*>|\{\\[^{}]*\}")
_ASIDE = ("WEBVTT", "NOTE", "STYLE", "REGION", "X-TIMESTAMP-MAP")


@dataclass(frozen=True, slots=True)
class Cue:
    """One text that is shown from `start` to `end`, and where it stands."""

    where: str
    start: float
    end: float
    text: str


def read(
    subtitles: Path,
    videos: Videos | None = None,
    task: Task = "read",
    due: Due = "start",
    licence: str = "",
    language: str = "en",
    suffix: str = ".mp4",
) -> Iterator[Candidate | Refused]:
    """The subtitles of a file, or of all files of a folder, as candidates, one a file.

    `language` is that of the subtitles, which is what the responses are in. Without `videos` each
    belongs to the file of its name and `suffix`.
    """
    folder = subtitles if subtitles.is_dir() else subtitles.parent
    for path in files(subtitles):
        name = path.relative_to(folder).as_posix()
        cues: list[Cue] = []
        try:
            check_no_folder(path, name)
            video = _video(name, videos, suffix)
            length = None if videos is None else videos.duration(video)
            found = False
            for one in cues_of(_text(path), name):
                found = True
                if isinstance(one, Refused):
                    yield one
                elif length is not None and one.start >= length:
                    yield Refused(one.where, "past the end", f"{one.start} s of {length:.3f} s")
                else:
                    cues.append(one)
            if not found:
                raise TimelineError("nothing in it", f"{name}: no cues")
        except TimelineError as error:
            yield refused(name, error)
            continue
        clip = Clip(video, length, video=video)
        yield from _candidates(clip, cues, name, task, due, licence, language)


def _candidates(
    clip: Clip, cues: Sequence[Cue], name: str, task: Task, due: Due, licence: str, language: str
) -> Iterator[Candidate | Refused]:
    kept: list[Cue] = []
    taken: dict[int, float] = {}
    counts = {"shifted_cues": 0, "overlapping_cues": 0}
    for cue in sorted(cues, key=lambda cue: cue.start):
        last = kept[-1] if kept else None
        if last is not None and cue.text == last.text and cue.start <= last.end + 0.1:
            yield Refused(cue.where, "said already", f"{cue.where}: as {last.where}")
            continue
        time = _free(cue, due, taken, clip)
        if time is None:
            yield Refused(cue.where, "two in one second", f"{cue.where} at {cue.start} s")
            continue
        taken[int(time)] = time
        counts["shifted_cues"] += time != (cue.start if due == "start" else cue.end)
        counts["overlapping_cues"] += last is not None and cue.start < last.end
        kept.append(cue if due == "start" and time == cue.start else replace(cue, start=time))
    if not kept:
        return
    id = record_id(SOURCE, [name, task, due, language, [[c.start, c.end, c.text] for c in kept]])
    wordings = {"read": READ, "comment": COMMENT, "translate": TRANSLATE}[task]
    asked = pick(wordings, id).format(language=language_name(language))
    events = [Event("q0", float(asked_at(id, min(taken.values()))), "user", asked)]
    for n, cue in enumerate(kept):
        until = cue.end if due == "start" else None
        rule = Rule("similarity")
        events.append(
            Event(f"r{n}", cue.start, "assistant", cue.text, until=until, answers="q0", rule=rule)
        )
    family = "translation" if task == "translate" else "commentary"
    meta = {key: count for key, count in counts.items() if count}
    where = [cue.where for cue in kept]
    try:
        timeline = Timeline(clip, family, SOURCE, tuple(events), meta=meta)
        yield sound(candidate(id, timeline, where, licence=licence, language=language))
    except TimelineError as error:
        yield from (refused(item, error) for item in where)


def _free(cue: Cue, due: Due, taken: dict[int, float], clip: Clip) -> float | None:
    """When the cue is due: in its second, or in the next one; None where there is no room."""
    time = cue.start if due == "start" else cue.end
    if clip.seconds is not None and int(time) >= clip.seconds:
        time = float(clip.seconds - 1)  # the last words end with the clip
    if int(time) not in taken:
        return time
    later = float(int(time) + 1)
    room = clip.seconds is None or later < clip.seconds
    shown = due == "end" or later < cue.end
    return later if room and shown and int(later) not in taken else None


def cues_of(text: str, name: str) -> Iterator[Cue | Refused]:
    """The cues of a file's text, by their order in it; those that are broken refused."""
    number = 0
    webvtt = text.startswith("WEBVTT")
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = [line.strip() for line in block.split("\n") if line.strip()]
        starts = [n for n, line in enumerate(lines) if "-->" in line]
        if not lines or (webvtt and not starts and lines[0].startswith(_ASIDE)):
            continue
        if not starts:
            where = f"{name} cue {number}"
            number += 1
            yield Refused(where, "no times", f"{where}: {block.strip()[:80]!r}")
        for n, start in enumerate(starts):
            stop = starts[n + 1] if n + 1 < len(starts) else len(lines)
            told = lines[start + 1 : stop]
            if n + 1 < len(starts) and told and told[-1].isdecimal():
                told.pop()  # the number of the next cue, without a line between
            where = f"{name} cue {number}"
            number += 1
            try:
                yield _cue(lines[start], told, where)
            except TimelineError as error:
                yield refused(where, error)


def _cue(times: str, lines: Sequence[str], where: str) -> Cue:
    left, _, right = times.partition("-->")
    start = time_of(left, where)
    end = time_of(right.split()[0] if right.split() else "", where)
    if end < start:
        raise TimelineError("ends before it starts", f"{where}: {start} to {end} s")
    text = " ".join(html.unescape(_TAG.sub("", " ".join(lines))).split())
    return Cue(where, start, end, said_of(text, where))


def _text(path: Path) -> str:
    try:
        # A pipe of this name would be waited for.
        with regular_file(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TimelineError("unreadable file", f"{path.name!r}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise TimelineError("too large", f"{path.name!r}")
    marks = [code for mark, code in _MARKS.items() if data.startswith(mark)]
    try:
        return data.decode(marks[0] if marks else "utf-8")
    except UnicodeDecodeError:
        raise TimelineError("not UTF-8", f"{path.name!r}") from None


def _video(name: str, videos: Videos | None, suffix: str) -> str:
    """The video that subtitles of this name belong to."""
    stem = name[: -len(Path(name).suffix)]
    stems = [stem, _LANGUAGE.sub("", stem)]
    if videos is None:
        return video_path(stems[1] + suffix, name)
    for one in stems:
        for ending in SUFFIXES:
            path = video_path(one + ending, name)
            if (videos.root / path).exists() and is_video(Path(path)):
                return path
    raise TimelineError("no video", f"{name}: none of its name in {str(videos.root)!r}")


def files(subtitles: Path) -> Iterator[Path]:
    """The file, or those of a folder that are subtitles by their names, in a fixed order; folders
    that can't be gone into come as they are."""
    if subtitles.is_dir():
        for path in Videos(subtitles).files():
            if path.suffix.lower() in _ENDINGS or path.is_dir():
                yield path
    elif subtitles.exists():
        yield subtitles
    else:
        raise UserError(f"{str(subtitles)!r} doesn't exist; mend the path")
