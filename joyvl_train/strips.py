"""A clip second by second, for a report: frames, what was heard, what was due and what was said."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence

from PIL import Image

from joyvl_train.actions import Delegation, spoken
from joyvl_train.heldout import Step, Trace
from joyvl_train.markup import Html, symbol, text
from joyvl_train.timeline import Event, Timeline, action_seconds
from joyvl_train.timing import Emission, Onset, Right, Verdict, classify, said_right

PER_LINE = 20
"""Seconds in a line of a strip."""

PER_LARGE_LINE = 10
"""Likewise where its frames are to be looked at: they are twice as wide."""

VERDICTS = {
    "hit": "in time",
    "wrong-text": "in time, wrong text",
    "late": "late",
    "repeat": "said again",
    "false-alarm": "false alarm",
    "missed": "missed",
    "malformed": "malformed",
}

Pictures = Callable[[int], Sequence[Image.Image]]
"""The frames of a second; the last one is shown."""


def legend() -> Html:
    """What colours and symbols of the strips mean."""
    items = [(name, symbol(name), label) for name, label in VERDICTS.items()]
    items += [
        ("", symbol("due"), "due"),
        ("window", Html("&nbsp;"), "its window"),
        ("held", Html("&nbsp;"), "its state holds"),
        ("", symbol("user"), "user"),
        ("", symbol("delegated"), "delegated"),
        ("", symbol("result"), "result returned"),
    ]
    rows = "".join(
        f'<li><span class="{name}">{icon}</span>{text(label)}</li>' for name, icon, label in items
    )
    return Html(f'<ul class="legend">{rows}</ul>')


def thumbnail(image: Image.Image, side: int = 92, quality: int = 55) -> str:
    """A small JPEG of `image`, its shorter side at most `side` pixels, as a data URL."""
    scale = min(1.0, side / min(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    file = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(
        file, "JPEG", quality=quality, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def strip(trace: Trace, pictures: Pictures, right: Right = said_right, title: str = "") -> Html:
    """The clip in lines of 20 seconds, then all that was said as a list."""
    verdict = classify(trace.onsets, trace.emissions, right)
    said = _said(verdict, right)
    gold = _gold(trace, verdict)
    steps = {step.second: step for step in trace.steps}
    lines = [
        _line(range(start, min(start + PER_LINE, len(trace.seconds))), steps, gold, said, pictures)
        for start in range(0, len(trace.seconds), PER_LINE)
    ]
    alarms = len(verdict.false_alarms)
    counts = (
        f"{len(verdict.matches)} of {len(trace.onsets)} in time, "
        f"{alarms} false alarm{'' if alarms == 1 else 's'}, {len(trace.seconds)} s"
    )
    heading = (
        f"<h3>{text(title or f'{trace.family}: {trace.clip}')}<small>{text(counts)}</small></h3>"
    )
    return Html(
        f'<article>{heading}<div class="scroll">{"".join(lines)}</div>'
        f"{_list(trace, verdict, said, right)}</article>\n"
    )


def annotation(timeline: Timeline, pictures: Pictures, seconds: range) -> Html:
    """What a timeline says of `seconds` of its clip: lines of 10 seconds, then all its events there
    as a list. `pictures` gives none where there are none to show."""
    due = action_seconds(timeline.events)
    heard: dict[int, list[tuple[str, str]]] = {}
    held: dict[int, str] = {}
    for event in timeline.of("user", "background", "assistant"):
        if event.role == "assistant":
            first, last = max(event.second, seconds.start), event.held_seconds.stop
            held |= dict.fromkeys(range(first, min(last, seconds.stop)), event.text)
        else:
            icon = "user" if event.role == "user" else "result"
            heard.setdefault(event.second, []).append((icon, event.text))
    lines = []
    for start in range(seconds.start, seconds.stop, PER_LARGE_LINE):
        line = range(start, min(start + PER_LARGE_LINE, seconds.stop))
        spoken_cells = [_annotated(due.get(t), held.get(t)) for t in line]
        rows = (
            ("frame", "frame", [_frame(t, pictures(t)) for t in line]),
            ("heard", "heard", [_cell("", heard.get(t, [])) for t in line]),
            ("said", "says", spoken_cells),
        )
        lines.append(_table(line, rows, large=True))
    listed = "".join(
        f'<tr><th scope="row">{event.second} s</th><td>{text(event.role)}</td>'
        f"<td>{text(_told(event))}</td></tr>"
        for event in timeline.of("user", "background", "assistant")
        if event.second in seconds
    )
    body = f'<table class="said-list"><tbody>{listed}</tbody></table>' if listed else ""
    return Html(f'<div class="scroll">{"".join(lines)}</div>{body}')


def annotation_legend(held: bool = True) -> Html:
    """What symbols of `annotation` mean. held: states that hold are among what is shown."""
    items = [
        ("", "user", "user"),
        ("hit", "due", "the assistant speaks"),
        *([("held", "", "its state holds")] if held else []),
        ("", "delegated", "it delegates"),
        ("", "result", "a result is back"),
    ]
    rows = "".join(
        f'<li><span class="{kind}">{symbol(icon) if icon else "&nbsp;"}</span>{text(label)}</li>'
        for kind, icon, label in items
    )
    return Html(f'<ul class="legend">{rows}</ul>')


def _annotated(event: Event | None, held: str | None) -> str:
    if event is None:
        return _cell("", []) if held is None else _cell("held", [], f"holds: {held}")
    icons = [("due", f"says: {event.text}")]
    if event.question is not None:
        icons.append(("delegated", f"delegates: {event.question}"))
    return _cell("hit", icons)


def _told(event: Event) -> str:
    until = "" if event.until is None else f" (until {event.until:.10g} s)"
    handed = "" if event.question is None else f" [delegates: {event.question}]"
    return f"{event.text}{handed}{until}"


def _said(verdict: Verdict, right: Right) -> dict[int, str]:
    """Second -> the class of what was said in it, a key of `VERDICTS`."""
    classes = {
        e.second: "wrong-text" if _fits(o, e, right) is False else "hit" for o, e in verdict.matches
    }
    classes |= {e.second: "late" for _, e in verdict.late}
    classes |= {e.second: "repeat" for _, e in verdict.repeats}
    return classes | {e.second: "false-alarm" for e in verdict.false_alarms}


def _fits(onset: Onset, emission: Emission, right: Right) -> bool | None:
    """Whether a match's text is right; a delegation's note counts only where it has a rule."""
    if onset.delegation and onset.rule is None:
        return None
    return right(onset, emission.text)


def _gold(trace: Trace, verdict: Verdict) -> dict[int, tuple[str, str, str]]:
    """Second -> (class, symbol, text) of the gold row; an onset hides what it lies in."""
    cells: dict[int, tuple[str, str, str]] = {}
    for onset in trace.onsets:
        for second in onset.held:
            cells[second] = ("held", "", f"holds: {onset.text}")
    for onset in trace.onsets:
        for second in onset.window:
            kind, _, label = cells.get(second, ("", "", f"window of: {onset.text}"))
            cells[second] = (f"{kind} window".strip(), "", label)
    missed = set(map(id, verdict.missed))
    for onset in trace.onsets:
        kind = cells[onset.second][0]
        if id(onset) in missed:
            cells[onset.second] = ("missed", "missed", f"missed: {onset.text}")
        else:
            cells[onset.second] = (kind, "due", f"due: {onset.text}")
    return cells


def _line(
    seconds: range,
    steps: dict[int, Step],
    gold: dict[int, tuple[str, str, str]],
    said: dict[int, str],
    pictures: Pictures,
) -> str:
    frames, heard, due, spoke = [], [], [], []
    for second in seconds:
        step = steps.get(second)
        frames.append(_frame(second, pictures(second) if step is not None else ()))
        icons = []
        if step is not None and step.results:
            icons.append(("result", " ".join(digest for _, digest in step.results)))
        if step is not None and step.queries:
            icons.append(("user", " ".join(step.queries)))
        heard.append(_cell("", icons))
        kind, icon, label = gold.get(second, ("", "", ""))
        due.append(_cell(kind, [(icon, label)] if icon else [], label))
        spoke.append(_spoke(step, said.get(second, "")))
    rows = (
        ("frame", "frame", frames),
        ("heard", "heard", heard),
        ("gold", "due", due),
        ("said", "said", spoke),
    )
    return _table(seconds, rows)


def _frame(second: int, images: Sequence[Image.Image]) -> str:
    if not images:
        return '<td class="blank" title="no frame"></td>'
    return f'<td><img src="{thumbnail(images[-1])}" alt="second {second}" loading="lazy"></td>'


def _table(
    seconds: range, rows: Sequence[tuple[str, str, Sequence[str]]], *, large: bool = False
) -> str:
    """The rows of a line, each (class, label, cells), under the numbers of its seconds."""
    heads = [f'<th scope="col">{second}</th>' for second in seconds]
    body = "".join(
        f'<tr class="{name}"><th scope="row">{label}</th>{"".join(cells)}</tr>'
        for name, label, cells in rows
    )
    width = 52 + (108 if large else 54) * len(seconds)
    kind = "strip large" if large else "strip"
    return (
        f'<table class="{kind}" style="width:{width}px"><thead><tr><th scope="row">second</th>'
        f"{''.join(heads)}</tr></thead><tbody>{body}</tbody></table>"
    )


def _spoke(step: Step | None, kind: str) -> str:
    if step is None:
        return _cell("", [])
    if step.malformed is not None:
        return _cell("malformed", [("malformed", f"malformed: {step.reply}")])
    words = spoken(step.action)
    if words is None:
        return _cell("", [])
    icons = [(kind, f"{VERDICTS[kind]}: {words}")]
    if isinstance(step.action, Delegation):
        icons.append(("delegated", f"delegated: {step.action.question}"))
    return _cell(kind, icons)


def _cell(kind: str, icons: Sequence[tuple[str, str]], label: str = "") -> str:
    drawn = "".join(symbol(icon, said) for icon, said in icons)
    hover = " / ".join(said for _, said in icons) or label
    title = f' title="{text(hover)}"' if hover else ""
    return f'<td class="{kind}"{title}>{drawn}</td>' if kind else f"<td{title}>{drawn}</td>"


def _list(trace: Trace, verdict: Verdict, said: dict[int, str], right: Right) -> str:
    """Every word of the clip, in order of time."""
    rows: list[tuple[int, int, str, str, Html]] = []
    matched = {e.second: (o, e) for o, e in verdict.matches}
    emissions = {e.second: e for e in trace.emissions}
    for step in trace.steps:
        for query in step.queries:
            rows.append((step.second, 0, "user", query, Html("")))
        for number, digest in step.results:
            rows.append((step.second, 1, f"background {number}", digest, Html("")))
        if step.malformed is not None:
            note = Html(f"{symbol('malformed')} malformed ({text(step.malformed)})")
            rows.append((step.second, 3, "said", step.reply or "", note))
        if step.second in emissions:
            kind = said[step.second]
            note = _verdict(kind, matched.get(step.second), right, step.truncated)
            rows.append((step.second, 3, "said", emissions[step.second].text, note))
        if isinstance(step.action, Delegation):
            rows.append((step.second, 4, "delegated", step.action.question, Html("")))
    missed = set(map(id, verdict.missed))
    for onset in trace.onsets:
        note = Html(f"{symbol('missed')} missed") if id(onset) in missed else Html("")
        rows.append((onset.second, 2, "due", onset.text, note))
    body = "".join(
        f'<tr><th scope="row">{second} s</th><td>{text(who)}</td><td>{text(words)}</td>'
        f"<td>{note}</td></tr>"
        for second, _, who, words, note in sorted(rows, key=lambda row: row[:2])
    )
    if not body:
        return '<p class="note">Nothing was said, and nothing was due.</p>'
    return f'<table class="said-list"><tbody>{body}</tbody></table>'


def _verdict(kind: str, pair: tuple[Onset, Emission] | None, right: Right, cut: bool) -> Html:
    notes = [VERDICTS[kind]]
    if kind == "hit" and pair is not None and (pair[0].rule is not None or not pair[0].delegation):
        notes.append("right text" if _fits(*pair, right) else "text unscored")
    if cut:
        notes.append("cut at the token limit")
    return Html(f"{symbol(kind)} {text(', '.join(notes))}")
