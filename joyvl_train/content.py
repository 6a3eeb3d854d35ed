"""Whether what was said is right, by the rule that the gold event carries.

The rules are those of `timeline.Rule`. Texts are compared as tokens: Unicode NFKC, case folded,
punctuation and English articles dropped. A rule that can't be scored (no judge, no fact to look
for) gives None, which is counted apart and never taken for wrong.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

from joyvl_train.timeline import Rule

Judge = Callable[[Rule, str, str], bool | None]
"""(rule, gold text, said) -> right or wrong, or None where the judge failed."""
Similarity = Callable[[str, str], float]
"""(gold text, said) -> closeness, 0 to 1. An embedding model's cosine can stand here."""

SIMILAR = 0.5
"""The closeness from which two texts count as the same."""

_ARTICLES = {"a", "an", "the"}
_APOSTROPHES = "'`\u2019\u02bc"
_MINUS = "\u2212\u2010\u2011\u2012\u2013"
# Scripts that write no spaces: each character is a token of its own.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_MARKS = ",./-"  # kept by `_prepared`, since numbers are written with them
_NUMBER = r"(?:(?<![a-z0-9])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
_PIECE = re.compile(rf"{_NUMBER}|[{_UNSPACED}]|[^\s,./\-{_UNSPACED}]+|[,./\-]")

_ONES = str.split("zero one two three four five six seven eight nine")
_TEENS = str.split(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TIES = str.split("twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: value for value, word in enumerate(_ONES + _TEENS)} | {"none": 0}
_TENS = {word: 10 * value for value, word in enumerate(_TIES, start=2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
# "no one", "that one", "the next one": a pronoun, no count.
_NOT_A_COUNT = frozenset(
    str.split("no this that the which each every any some another other last next")
)
_HEDGES = {"or", "to", "maybe", "perhaps", "/", "-", ","}


def right(
    rule: Rule | None,
    gold_text: str,
    said: str,
    judge: Judge | None = None,
    similarity: Similarity | None = None,
    similar: float = SIMILAR,
) -> bool | None:
    """Whether `said` is right where `gold_text` is the gold; None where that can't be scored.

    exact: the tokens of `said` are those of the gold text or of one of the facts.
    number: see `same_numbers`; None where neither facts nor gold text hold a number.
    key_facts: every fact is said, whole words, see `says`; None where there are no facts.
    similarity: `similarity(gold_text, said) >= similar`, token F1 unless another is given.
    judged: what `judge` says; None without one. An event without a rule is scored by similarity.

    >>> right(Rule("number", ("3",)), "That makes three.", "One more, 3 so far.")
    True
    """
    rule = rule or Rule("similarity")
    match rule.kind:
        case "exact":
            return any(_same(text, said) for text in (gold_text, *rule.facts))
        case "number":
            return same_numbers(rule.facts or (gold_text,), said, gold_text)
        case "key_facts":
            return all(says(fact, said) for fact in rule.facts) if rule.facts else None
        case "similarity":
            return (similarity or token_f1)(gold_text, said) >= similar
        case "judged":
            return None if judge is None else judge(rule, gold_text, said)
    raise ValueError(f"unknown content rule {rule.kind!r}")


def tokens(text: str) -> tuple[str, ...]:
    """Normalized tokens: words, numbers, single characters of unspaced scripts, symbols.

    Articles are dropped unless nothing else is left ("A" may be the answer to a choice).

    >>> tokens("The cat's on A-3, 1,000 km away!")
    ('cats', 'on', '3', '1000', 'km', 'away')
    """
    words = [_plain(p) for p in _pieces(text) if p not in _MARKS]
    kept = tuple(word for word in words if word not in _ARTICLES)
    return kept or tuple(words)


def numbers(text: str) -> list[Decimal]:
    """The numbers said in `text`, in order: digits and English number words.

    Digits may carry a sign, decimals and thousands separators; words go to the billions
    ("two hundred and five", "minus three", "three point five", "2 million"). "none" is 0. Digits
    inside a word ("B2") and "one" as a pronoun ("that one") are no numbers; ordinals in words
    ("second") aren't either.
    """
    return [value for value, _, _ in _number_spans(_pieces(text))]


def same_numbers(expected: Sequence[str], said: str, gold_text: str = "") -> bool | None:
    """Whether the numbers expected are the numbers said; None where none is expected.

    A text of `expected` may list alternatives, "2|3". Several numbers expected: the same set must
    be said. One expected: the last number said decides, so that "one more, that makes 3" says 3.
    So that listing numbers does not pay, no more different numbers may be said than the gold text
    holds, or two; and a last number that is only one end of "2 or 3" is no answer.
    """
    choices = [
        set(itertools.chain.from_iterable(map(numbers, choice)))
        for choice in itertools.product(*(text.split("|") for text in expected))
    ]
    choices = [choice for choice in choices if choice]
    if not choices:
        return None
    pieces = _pieces(said)
    spans = _number_spans(pieces)
    found = {value for value, _, _ in spans}
    if not found:
        return False
    if any(len(choice) > 1 and choice == found for choice in choices):
        return True
    if len(found) > max(2, len(set(numbers(gold_text)))):
        return False
    if len(spans) > 1:
        between = pieces[spans[-2][2] : spans[-1][1]]
        if set(between) <= _HEDGES and set(between) - {","}:
            return False
    return {spans[-1][0]} in choices


def says(fact: str, said: str) -> bool:
    """Whether `said` holds one of the alternatives of `fact` ("car|automobile") as whole words.

    Numbers compare by value ("three" is "3"); a plural in -s, -es or -ies is the same word.
    """
    heard = _counted_tokens(said)
    for alternative in fact.split("|"):
        wanted = _counted_tokens(alternative)
        if wanted and any(
            all(map(_same_word, wanted, heard[i : i + len(wanted)]))
            for i in range(len(heard) - len(wanted) + 1)
        ):
            return True
    return False


def token_f1(gold_text: str, said: str) -> float:
    """Harmonic mean of the shares of tokens that each text has of the other's, 0 to 1."""
    gold, heard = Counter(_counted_tokens(gold_text)), Counter(_counted_tokens(said))
    if not gold or not heard:
        return float(gold_text.strip() == said.strip())
    return 2 * (gold & heard).total() / (gold.total() + heard.total())


def _same(gold: str, said: str) -> bool:
    wanted, heard = tokens(gold), tokens(said)
    return wanted == heard if wanted or heard else gold.strip() == said.strip()


def _prepared(text: str) -> str:
    """NFKC, case folded; apostrophes gone, other punctuation a space, symbols set apart."""
    out = []
    for char in unicodedata.normalize("NFKC", text).casefold():
        if char in _APOSTROPHES:
            continue
        if char in _MINUS:
            out.append("-")
        elif char in _MARKS or (kind := unicodedata.category(char)[0]) in "LMN":
            out.append(char)
        else:
            out.append(f" {char} " if kind == "S" else " ")
    return re.sub(r"(?<=[a-z])-(?=[a-z])", " ", "".join(out))


def _pieces(text: str) -> list[str]:
    return _PIECE.findall(_prepared(text))


def _plain(piece: str) -> str:
    return piece.replace(",", "") if piece[-1].isdecimal() else piece


def _counted_tokens(text: str) -> list[str]:
    """`tokens`, with each number written as its plain value."""
    pieces = _pieces(text)
    for value, start, stop in reversed(_number_spans(pieces)):
        pieces[start:stop] = [f"{value.normalize():f}"]
    words = [p for p in pieces if p not in _MARKS]
    return [word for word in words if word not in _ARTICLES] or words


def _same_word(a: str, b: str) -> bool:
    return a == b or a in _singulars(b) or b in _singulars(a)


def _singulars(word: str) -> tuple[str, ...]:
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return ()
    forms = [word[:-1]]
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    return tuple(forms)


def _number_spans(pieces: Sequence[str]) -> list[tuple[Decimal, int, int]]:
    """(value, first piece, piece after) of each number in `pieces`."""
    spans = []
    i = 0
    while i < len(pieces):
        signed = pieces[i] in ("minus", "negative")
        value, stop = _read_number(pieces, i + signed)
        if value is None:
            i += 1
            continue
        pronoun = pieces[i] == "one" and stop == i + 1 and i and pieces[i - 1] in _NOT_A_COUNT
        if not pronoun:
            spans.append((-value if signed else value, i, stop))
        i = stop
    return spans


def _read_number(pieces: Sequence[str], i: int) -> tuple[Decimal | None, int]:
    """The number that starts at piece i and the piece after it; (None, i) where none does."""
    piece = pieces[i] if i < len(pieces) else ""
    if piece and piece[-1].isdecimal() and (piece[0].isdecimal() or piece[0] in "-."):
        value, i = Decimal(piece.replace(",", "")), i + 1
        while i < len(pieces) and pieces[i] in _SCALES:
            value, i = value * _SCALES[pieces[i]], i + 1
        return value, i
    start, total, below = i, 0, 10**12
    while True:
        # The "and" of "two thousand and five" belongs to the number only if one follows it.
        skip = i > start and i < len(pieces) and pieces[i] == "and"
        group, stop = _read_group(pieces, i + skip, allow_a=i == start)
        if group is None:
            break
        scale = 1
        if stop < len(pieces) and _SCALES.get(pieces[stop], 0) >= 1000:
            scale, stop = _SCALES[pieces[stop]], stop + 1
        if scale >= below or (i > start and below == 1):
            break
        total, below, i = total + group * scale, scale, stop
        if scale == 1:
            break
    if i == start:
        return None, start
    value = Decimal(total)
    if i + 1 < len(pieces) and pieces[i] == "point" and pieces[i + 1] in _ONES:
        digits = list(itertools.takewhile(lambda word: word in _ONES, pieces[i + 1 :]))
        value += Decimal("0." + "".join(str(_ONES.index(word)) for word in digits))
        i += 1 + len(digits)
    return value, i


def _read_group(pieces: Sequence[str], i: int, allow_a: bool) -> tuple[int | None, int]:
    """A number word group below a thousand, or the "a" of "a thousand"."""
    nothing = (None, i)
    value, stop = _read_below_100(pieces, i)
    if value is None:
        follows = pieces[i + 1] if i + 1 < len(pieces) else ""
        if not (allow_a and i < len(pieces) and pieces[i] == "a" and follows in _SCALES):
            return nothing
        value, stop = 1, i + 1
    if stop < len(pieces) and pieces[stop] == "hundred":
        value, stop = value * 100, stop + 1
        skip = stop < len(pieces) and pieces[stop] == "and"
        rest, after = _read_below_100(pieces, stop + skip)
        if rest:
            value, stop = value + rest, after
    return value, stop


def _read_below_100(pieces: Sequence[str], i: int) -> tuple[int | None, int]:
    word = pieces[i] if i < len(pieces) else ""
    if word in _SMALL:
        return _SMALL[word], i + 1
    if word in _TENS:
        unit = _SMALL.get(pieces[i + 1], 0) if i + 1 < len(pieces) else 0
        if 1 <= unit <= 9:
            return _TENS[word] + unit, i + 2
        return _TENS[word], i + 1
    return None, i
