"""On-screen words and lines in several languages, said in English when they appear."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from data_pipeline.world.captions import Caption
from data_pipeline.world.languages import LINES, ROMANIZED, WORDS
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.wordings import ASK
from data_pipeline.world.words import capital
from joyvl_train.timeline import Rule

Place = Literal["top", "center", "bottom"]
Table = dict[tuple[str, str], str]


def _pool(draft: Draft, event: str, ask: str, table: Table) -> tuple[list[tuple[str, str]], str]:
    """What may be shown, the split's own first, and the wording of the question."""
    keys = {f"{language}: {text}": (language, text) for language, text in table}
    lead, wording = draft.choose(event, keys, ASK[ask])
    pool = [k for k in draft.fellows(event, keys, wording) if k != lead]
    draft.rng.shuffle(pool)
    # A word that two languages share is shown once.
    shown: dict[str, tuple[str, str]] = {}
    for key in (lead, *pool):
        shown.setdefault(keys[key][1].casefold(), keys[key])
    return list(shown.values()), wording


def _show(draft: Draft, second: int, stop: float, text: str, language: str, place: Place) -> float:
    """Put a text on the screen in `second`; returns the moment."""
    at = round(second + draft.rng.uniform(0.05, 0.6), 2)
    draft.captions.append(
        Caption(
            text,
            language,
            at,
            stop,
            place=place,
            style=draft.rng.choice(("outline", "box")),
            size=round(draft.rng.uniform(0.2, 0.28), 2),
        )
    )
    return at


def _spans(draft: Draft, start: int, low: int, high: int) -> list[tuple[int, float]]:
    """When texts are on the screen: (first second, moment of the end), with pauses between some."""
    beats = [*draft.beats(start, low, high), draft.seconds]
    spans = []
    for second, following in pairwise(beats):
        pause = draft.rng.random() < 0.4 and following - second > 2
        stop = following - 1 + 0.02 if pause else following + 0.02
        spans.append((second, min(stop, float(draft.seconds))))
    return spans


def _translated(draft: Draft, event: str, ask: str, table: Table, place: Place) -> None:
    pool, wording = _pool(draft, event, ask, table)
    query = draft.ask(draft.rng.randint(0, 1), wording)
    draft.places = []
    for i, (second, stop) in enumerate(_spans(draft, 2, 3, 4)):
        language, text = pool[i % len(pool)]
        draft.record(event, f"{language}: {text}", wording)
        at = _show(draft, second, stop, text, language, place=place)
        _report(draft, at, stop, table[language, text], query)


def _report(draft: Draft, at: float, stop: float, english: str, query: str) -> None:
    draft.say(at, capital(english), query, Rule("exact", (english,)), until=float(int(stop)))


def words(draft: Draft) -> None:
    """Single words in large letters."""
    _translated(draft, "word", "translate", WORDS, "center")


def subtitles(draft: Draft) -> None:
    """Subtitles that go on; a line that stays or comes again at once is not said again."""
    rng = draft.rng
    pool, wording = _pool(draft, "line", "subtitles", LINES)
    query = draft.ask(rng.randint(0, 1), wording)
    draft.places = [0, 1]
    name = rng.choice(draft.names)
    draft.enter(name, 0)
    shown = 0
    repeats = 0
    for second, stop in _spans(draft, 2, 3, 4):
        if shown and rng.random() < 0.3:
            language, text = pool[shown - 1]
            _show(draft, second, stop, text, language, place="bottom")
            repeats += 1
            continue
        language, text = pool[shown % len(pool)]
        shown += 1
        draft.record("line", f"{language}: {text}", wording)
        at = _show(draft, second, stop, text, language, place="bottom")
        _report(draft, at, stop, LINES[language, text], query)
    draft.meta["repeated_lines"] = repeats
    if not shown:
        raise Clash("no line")


def romanized(draft: Draft) -> None:
    """Words in Cyrillic or Greek letters, with their romanization below or after them.

    The romanization is the same word, so it is not said again; a romanization that comes alone, a
    moment after its word, is no new word either.
    """
    rng = draft.rng
    table = {key: english for key, (_, english) in ROMANIZED.items()}
    pool, wording = _pool(draft, "script", "translate", table)
    query = draft.ask(rng.randint(0, 1), wording)
    draft.places = []
    for i, (second, stop) in enumerate(_spans(draft, 2, 4, 5)):
        language, text = pool[i % len(pool)]
        roman, english = ROMANIZED[language, text]
        draft.record("script", f"{language}: {text}", wording)
        if rng.random() < 0.5:
            at = _show(draft, second, stop, f"{text}\n{roman}", language, place="center")
        else:
            at = _show(draft, second, stop, text, language, place="top")
            if second + 3 < stop:
                _show(draft, second + 2, stop, roman, language, place="bottom")
        _report(draft, at, stop, english, query)


KINDS = {
    "words": Kind(words, 2.0),
    "subtitles": Kind(subtitles),
    "romanized": Kind(romanized, 0.8),
}
