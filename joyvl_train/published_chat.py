"""Published chats, a user and an assistant turn a second, in and out.

`joyvl_train.published` says what the forms are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from joyvl_train.actions import (
    ActionFormatError,
    Delegation,
    Response,
    Silence,
    fold,
    parse_action,
)
from joyvl_train.chunks import queries_by_second, results_by_second
from joyvl_train.conversation import messages
from joyvl_train.frames import inside
from joyvl_train.published_raw import (
    Root,
    clip_id,
    family_of,
    kept_meta,
    line_of,
    linked,
    offset_of,
    opening_of,
    query_events,
    video_of,
)
from joyvl_train.stream import Turn
from joyvl_train.timeline import MAX_SECONDS, Clip, Event, Timeline, TimelineError, actions

_IMAGE = "<image>"
_TIME = re.compile(r"<(\d+(?:\.\d+)?) seconds>")
_RESULT = re.compile(r"\[Background (\d+)\] (.*)")
_STREAMO_TIME = re.compile(r"<(\d+)s-(\d+)s>")
_STREAMO_ACTION = re.compile(r"</(silence|standby|response)>\s*(.*)", re.DOTALL | re.IGNORECASE)


def from_chat(item: Mapping[str, Any], where: str, root: Root) -> Timeline:
    chat = item["messages"]
    if not isinstance(chat, list):
        raise TimelineError("shape", f"{where}: messages is no list")
    for n, message in enumerate(chat):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise TimelineError("shape", f"{where}: message {n} is no text of a role")
    meta = kept_meta(item)
    if chat and chat[0].get("role") == "system":
        meta["system"] = chat[0]["content"]
        chat = chat[1:]
    roles = [message.get("role") for message in chat]
    if not chat or roles != ["user", "assistant"] * (len(chat) // 2):
        raise TimelineError("no pairs of turns", f"{where}: roles {roles[:6]}")
    pairs = [(u["content"], a["content"]) for u, a in zip(chat[::2], chat[1::2], strict=True)]
    streamo = "<stream>" in pairs[0][0]
    turns = [_streamo_turn(*p, where) if streamo else _turn(*p, where) for p in pairs]
    offset = offset_of(item, where)
    seconds = _seconds([turn[0] for turn in turns], where, offset)
    clip = _chat_clip(item, where, root, seconds, [turn[1] for turn in turns], offset)
    asked: list[tuple[float, str]] = []
    spoken: list[Event] = []
    results: list[Event] = []
    for second, (_, _, query, digests, action) in zip(seconds, turns, strict=True):
        if query:
            asked.append((float(second), line_of(query, f"{where}: second {second}")))
        for number, digest in digests:
            delegated = [event.id for event in spoken if event.question is not None]
            if not 1 <= number <= len(delegated):
                raise TimelineError("answers nothing", f"{where}: [Background {number}]")
            text = line_of(digest, f"{where}: second {second}")
            id = f"b{len(results)}"
            results.append(
                Event(id, float(second), "background", text, answers=delegated[number - 1])
            )
        _speak(spoken, second, action)
    queries, repeated = query_events(asked, [event.time for event in spoken])
    return Timeline(
        clip=clip[0],
        family=family_of(item),
        source=str(item.get("source") or ""),
        events=linked(queries, spoken, results),
        frames_per_second=clip[1],
        opening=opening_of(item, where),
        meta={**meta, "repeated_queries": repeated} if repeated else meta,
    )


_Turn = tuple[float | None, int, str, list[tuple[int, str]], Any]
"""Time (None: not told), number of images, query, background lines, action."""


def _turn(user: str, assistant: str, where: str) -> _Turn:
    images = user.count(_IMAGE)
    text = user.replace(_IMAGE, "")
    times = list(_TIME.finditer(text))
    time = None
    if times:
        time = _told(times[-1].group(1), where)
        text = text[: times[-1].start()] + text[times[-1].end() :]
    digests = []
    lines: list[str] = []
    for line in text.splitlines():
        result = _RESULT.fullmatch(line) if not lines else None
        if result:
            digests.append((int(_told(result.group(1), where)), result.group(2)))
        elif line.strip():
            lines.append(line.strip())
    try:
        action = parse_action(assistant)
    except ActionFormatError as error:
        raise TimelineError("format", f"{where}: {error}") from None
    return time, images, " ".join(lines), digests, action


def _streamo_turn(user: str, assistant: str, where: str) -> _Turn:
    """A turn of Streamo's training form; its standby is silence for us."""
    times = list(_STREAMO_TIME.finditer(user))
    if not times or _told(times[-1].group(2), where) != _told(times[-1].group(1), where) + 1:
        raise TimelineError("turn of no second", f"{where}: {user[-80:]!r}")
    query = user[: times[-1].start()].strip()
    found = _STREAMO_ACTION.fullmatch(assistant.strip())
    if found is None:
        raise TimelineError("format", f"{where}: {assistant[:80]!r}")
    action = None
    if found.group(1).lower() == "response":
        action = _action(Response, fold(found.group(2)), where)
    elif found.group(2):
        raise TimelineError("format", f"{where}: {assistant[:80]!r}")
    return _told(times[-1].group(1), where), user.count(_IMAGE), query, [], action


def _told(number: str, where: str) -> float:
    """A time or a task number, however long it is written."""
    value = float(number)
    if value > MAX_SECONDS:
        raise TimelineError("past the end", f"{where}: {number[:40]} is more than a day")
    return value


def _action(kind: type[Response], text: str, where: str) -> Response:
    try:
        return kind(text)
    except ActionFormatError as error:
        raise TimelineError("format", f"{where}: {error}") from None


def _seconds(times: Sequence[float | None], where: str, offset: int) -> list[int]:
    """The second of each turn of a clip that begins at `offset`: as told from the video's start, or
    counted where no turn tells it."""
    if all(time is None for time in times):
        return list(range(len(times)))
    seconds = []
    for n, time in enumerate(times):
        if time is None or time != math.floor(time):
            raise TimelineError("turn of no second", f"{where}: turn {n} at {time!r}")
        if time < offset:
            raise TimelineError("negative time", f"{where}: turn {n} before the clip's {offset} s")
        seconds.append(int(time) - offset)
    for before, after in pairwise(seconds):
        if after == before:
            raise TimelineError("two in one second", f"{where}: turns of second {after}")
        if after < before:
            raise TimelineError("turns out of order", f"{where}: second {after} after {before}")
    return seconds


def _chat_clip(
    item: Mapping[str, Any],
    where: str,
    root: Root,
    seconds: list[int],
    counts: list[int],
    offset: int,
) -> tuple[Clip, float]:
    """The clip, and its pictures a second; places without a picture hold an empty path."""
    images = item.get("images") or []
    if not isinstance(images, list) or not all(isinstance(i, str) and i for i in images):
        raise TimelineError("shape", f"{where}: images is no list of paths")
    if len(images) != sum(counts):
        detail = f"{where}: {len(images)} images, {sum(counts)} places for them"
        raise TimelineError("images and turns differ", detail)
    name = clip_id(item, where)
    duration = float(seconds[-1] + 1)
    if not images:
        return Clip(name, duration, video=video_of(item, root), offset=offset), 1.0
    for image in images:
        inside(root if root is not None else ".", image)
    rate = max(counts)
    if rate > 60:
        raise TimelineError("bad frame rate", f"{where}: {rate} images in a second")
    places = [""] * (rate * (seconds[-1] + 1))
    rest = iter(images)
    for second, count in zip(seconds, counts, strict=True):
        for place in range(rate - count, rate):
            places[second * rate + place] = next(rest)
    return Clip(name, duration, images=tuple(places), offset=offset), float(rate)


def _speak(spoken: list[Event], second: int, action: Any) -> None:
    """Add what is said in a second; the same response in the next second repeats it."""
    if not isinstance(action, Response | Delegation):
        return
    if isinstance(action, Delegation):
        id = f"r{len(spoken)}"
        spoken.append(Event(id, float(second), "assistant", action.note, action.question))
        return
    last = spoken[-1] if spoken else None
    if last is not None and last.question is None and last.text == action.text:
        end = last.until if last.until is not None else last.second + 1
        if end == second:
            spoken[-1] = replace(last, until=float(second + 1), repeat=True)
            return
    spoken.append(Event(f"r{len(spoken)}", float(second), "assistant", action.text))


def to_chat(timeline: Timeline, pictures: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The converted record of a timeline whose second t is shown by the files `pictures[t]`.

    A second without pictures is left out and its texts move to the next one. Holds what the model
    is trained on; fractions of seconds, rules, windows and ends of states have no place in it.
    Raises `TimelineError` where something is due in a second that has no pictures.
    """
    where = f"clip {timeline.clip.id!r}"
    turns = []
    asked: tuple[str, ...] = ()
    returned: tuple[tuple[int, str], ...] = ()
    by_second = queries_by_second(timeline)
    results = results_by_second(timeline)
    for second, action in enumerate(actions(timeline, len(pictures))):
        asked += by_second.pop(second, ())
        returned += results.pop(second, ())
        if pictures[second]:
            shown = tuple(pictures[second])
            turns.append(Turn(second + timeline.clip.offset, shown, asked, returned, action))
            asked, returned = (), ()
        elif action != Silence():
            raise TimelineError("no frames", f"{where}: second {second} speaks")
    if by_second or results or asked or returned:
        raise TimelineError("past the end", f"{where}: a text after second {len(pictures) - 1}")
    chat = []
    for message in messages("", turns):
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text", _IMAGE) for part in content)
        chat.append({"role": message["role"], "content": content})
    item: dict[str, Any] = {
        "messages": chat,
        "images": [path for turn in turns for path in turn.frames],
        "video_name": timeline.clip.id,
        "task_type": timeline.meta.get("task_type", timeline.family),
        "source": timeline.source,
    }
    if timeline.opening:
        item["opening"] = timeline.opening
    if timeline.clip.offset:
        item["clip_offset"] = timeline.clip.offset
    return item
