"""Questions on videos, multiple choice or open: JSON or JSON lines with these fields.

    {"video": "a/b.mp4", "question": "...", "options": ["...", "..."], "answer": "B", "time": 12}

video, question, answer: needed. options: empty or left out where the question is open. answer: an
option's text, its letter, or its number from 0; of an open question the text. time: the second of
the question, a number or a clock time; left out where it is about the whole video, which is asked
in the last second, so that `duration` or the video itself must tell it. answer_time: the second in
which the answer is due, `time` unless told. duration, id, source, family ("qa"), language: as they
say. An item is a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.items import (
    candidate,
    duration_of,
    each_item,
    json_records,
    list_of,
    object_of,
    record_id,
    text_of,
    time_of,
)
from data_pipeline.sources.videos import Videos, video_path
from data_pipeline.sources.wordings import choice, letter
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

SOURCE = "video_qa"

_LETTER = re.compile(r"\(?([A-Za-z])\)?[.):]?")
_LETTERED = re.compile(r"\(?([A-Z])(?:\)|[.:])\)?\s+(\S.*)")


def read(
    annotations: Path, videos: Videos | None = None, licence: str = "", language: str = "en"
) -> Iterator[Candidate | Refused]:
    """The records of an annotation file as candidates."""

    def make(data: Any, where: str) -> list[Candidate]:
        record = object_of(data, where)
        path = video_path(record.get("video"), where)
        duration = duration_of(record.get("duration"), where)
        clip = Clip(path, duration, video=path)
        if duration is None and videos is not None and record.get("time") is None:
            clip = Clip(path, videos.duration(path), video=path)
        asked, due = _times(record, clip, where)
        question, said, rule = _worded(record, where)
        events = (
            Event("q0", asked, "user", question),
            Event("r0", due, "assistant", said, answers="q0", rule=rule),
        )
        told = {
            key: text_of(record[key], f"{where}: {key}") if record.get(key) else default
            for key, default in (("family", "qa"), ("source", SOURCE), ("language", language))
        }
        meta = {"id": record["id"]} if "id" in record else {}
        timeline = Timeline(clip, told["family"], told["source"], events, meta=meta)
        id = record_id(SOURCE, record)
        return [candidate(id, timeline, where, licence=licence, language=told["language"])]

    return each_item(json_records(annotations), make, videos)


def _times(record: Mapping[str, Any], clip: Clip, where: str) -> tuple[float, float]:
    """When the question is asked, and when its answer is due."""
    if record.get("time") is not None:
        asked = time_of(record["time"], f"{where}: time")
    elif clip.seconds:
        asked = float(clip.seconds - 1)
    else:
        raise TimelineError("no time", f"{where}: neither time nor duration")
    if record.get("answer_time") is None:
        return asked, asked
    due = time_of(record["answer_time"], f"{where}: answer_time")
    if due < asked:
        raise TimelineError("answer before its question", f"{where}: {due} s before {asked} s")
    return asked, due


def _worded(record: Mapping[str, Any], where: str) -> tuple[str, str, Rule]:
    """Question, answer, and what counts as right."""
    question = text_of(record.get("question"), f"{where}: question")
    options = record.get("options")
    if options is None or options == []:
        answer = text_of(record.get("answer"), f"{where}: answer")
        return question, answer, Rule("similarity")
    texts = plain_options(
        [
            text_of(option, f"{where}: option {n}")
            for n, option in enumerate(list_of(options, f"{where}: options"))
        ]
    )
    right = _right(record.get("answer"), texts, where)
    said, name = texts[right], letter(right)
    rule = Rule("exact", tuple(dict.fromkeys((name, f"{name}. {said}", said))))
    return choice(question, texts), said, rule


def plain_options(options: Sequence[str]) -> list[str]:
    """Options without the letters that all of them may start with."""
    found = [_LETTERED.fullmatch(option) for option in options]
    plain = [match[2] for n, match in enumerate(found) if match and match[1] == letter(n)]
    return plain if len(plain) == len(options) else list(options)


def _right(answer: Any, options: Sequence[str], where: str) -> int:
    """The number of the right option."""
    if type(answer) is int:
        found = {answer}
    else:
        text = text_of(answer, f"{where}: answer")
        found = {n for n, option in enumerate(options) if option == text}
        if not found and (match := _LETTERED.fullmatch(text)):
            given = (match[1], match[2])
            found = {n for n, option in enumerate(options) if (letter(n), option) == given}
        if not found and (match := _LETTER.fullmatch(text)):
            found = {ord(match[1].upper()) - ord("A")}
    found &= set(range(len(options)))
    if len(found) != 1:
        raise TimelineError("no such option", f"{where}: answer {str(answer)[:60]!r}")
    return found.pop()
