"""What users say and what is said to them, where an annotation gives no words of its own.

Instructions vary, responses follow from the annotation alone. Which wording is taken depends on the
candidate's id, so that the same record always gets the same words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

LATEST_ASK = 3
"""An instruction comes in one of the first seconds, this one at the latest, and before the event
wherever the event leaves it time."""

ONCE = (
    "Tell me when this happens: {what}",
    "Let me know as soon as you see this: {what}",
    "Alert me when this begins: {what}",
    "Watch for this and say so when it starts: {what}",
    "Notify me once this happens: {what}",
    "Keep an eye on the video and tell me when you see: {what}",
    "I am waiting for this, tell me when it comes: {what}",
    "Report it when this takes place: {what}",
    "Speak up the moment this starts: {what}",
    "When you notice the following, say so: {what}",
)
"""For one event."""

EACH = (
    "Tell me each time this happens: {what}",
    "Let me know whenever you see this: {what}",
    "Alert me every time this begins: {what}",
    "Watch for this and report each time it starts: {what}",
    "Notify me whenever this happens: {what}",
    "Keep an eye on the video and tell me every time you see: {what}",
    "I want to hear of it each time this comes: {what}",
    "Report every time this takes place: {what}",
    "Speak up each time this starts: {what}",
    "Whenever you notice the following, say so: {what}",
)
"""For an event that may come several times; said once each time, however long it lasts."""

STEPS = (
    "This is how to {what}. Name each step when it begins. The steps: {steps}.",
    "Follow along: {what}. Say which step it is as each one starts, out of these: {steps}.",
    "I am watching how to {what}. Tell me each step when it starts. These are the steps: {steps}.",
    "Announce every step of this the moment it begins: {what}. It has these steps: {steps}.",
)

COUNT = (
    "Count how often this happens: {what}. Say the number each time.",
    "Keep a running count of this: {what}. Tell me the number after each time.",
    "How many times do you see this: {what}? Count along as each one ends.",
    "Each time this has happened, say how many times so far: {what}.",
)

COMMENT = (
    "Comment on the video as it plays.",
    "Give a live commentary.",
    "Tell me what is going on as it happens.",
    "Narrate what you see.",
    "Talk me through the video.",
    "Commentate this for me, live.",
    "Describe what happens, and keep quiet when there is nothing to say.",
    "Be the narrator of this video.",
)

READ = (
    "Read me each subtitle when it appears.",
    "Say each line of the subtitles as it comes up.",
    "Read the subtitles out loud, line by line.",
    "Whenever a subtitle is shown, read it to me.",
    "Tell me what every subtitle says.",
    "Repeat each subtitle as soon as you see it.",
)

TRANSLATE = (
    "Translate what is said into {language}, line by line.",
    "Give me each line in {language} as it is said.",
    "Interpret this into {language} for me.",
    "Tell me in {language} what they say, as they say it.",
    "Please translate everything that is said into {language}.",
    "I need a live translation into {language}.",
)

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(code: str) -> str:
    """What a language is called, of codes such as "en" and "pt-BR"; a code not known as it is."""
    return LANGUAGES.get(code.partition("-")[0].lower(), code)


_ENDS = ".!?…。！？"
_CLOSING = "\"'”’»)"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def pick(wordings: Sequence[str], id: str) -> str:
    """The wording that belongs to this id, 32 hexadecimal digits."""
    return wordings[int(id[:8], 16) % len(wordings)]


def asked_at(id: str, first: float) -> int:
    """The second of an instruction whose first event is at `first` seconds."""
    return int(id[8:16], 16) % (min(LATEST_ASK, max(0, math.floor(first) - 1)) + 1)


def alert(id: str, what: str, several: bool) -> str:
    """An instruction to report an event, or each of several, in the words of its annotation."""
    return pick(EACH if several else ONCE, id).format(what=sentence(what, capital=False))


def sentence(text: str, capital: bool = True) -> str:
    """The text of an annotation as something to say: a capital first, a full stop last.

    >>> sentence("person turns on a light")
    'Person turns on a light.'
    """
    if capital:
        text = text[:1].upper() + text[1:]
    return text if ends_sentence(text) else f"{text}."


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with this text."""
    return text.rstrip(_CLOSING)[-1:] in tuple(_ENDS)


def bare(text: str) -> str:
    """The text without its full stop, to stand inside a sentence."""
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def words_of(name: str) -> str:
    """A name in one word as a phrase.

    >>> words_of("PutOnHairExtensions"), words_of("boil_eggs")
    ('put on hair extensions', 'boil eggs')
    """
    words = _CAMEL.sub(" ", name.replace("_", " ")).split()
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def letter(number: int) -> str:
    """The letter of an option; past Z its number."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def choice(question: str, options: Sequence[str]) -> str:
    """A question with its options, by letter."""
    listed = " ".join(f"{letter(n)}. {sentence(text, False)}" for n, text in enumerate(options))
    return f"{question} {listed}"
