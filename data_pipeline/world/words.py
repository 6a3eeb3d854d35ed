"""The language of the world: how things are named, asked for and reported.

Instructions vary (eight wordings and more of each, several names of a thing); responses are short
and follow from instruction and event alone, so that a small model can learn them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_PLURALS = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "fireman": "firemen",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "knife": "knives",
    "leaf": "leaves",
    "wolf": "wolves",
    "cactus": "cacti",
}
_MANY = {"scissors", "glasses", "shears", "flames", "fumes", "trousers", "jeans"}
"""Nouns that are plural already."""

STATES = (
    "open closed on off lit unlit red green yellow amber waving standing ringing quiet full empty"
).split()
"""States that can be said of a thing with "is": "The door is open."."""

PEOPLE = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas")


def plural(noun: str) -> str:
    """The plural of a noun, or of the last word of a phrase.

    >>> plural("red box"), plural("person"), plural("butterfly")
    ('red boxes', 'people', 'butterflies')
    """
    *before, last = noun.split(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last in _MANY:
        pass
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


def a(noun: str, article: str = "a") -> str:
    """The noun with its article: "the" and "some" stay, "a" and "an" go by the noun's sound.

    >>> a("apple"), a("red apple"), a("smoke", "some"), a("umbrella"), a("unicorn")
    ('an apple', 'a red apple', 'some smoke', 'an umbrella', 'a unicorn')
    """
    if article in ("the", "some"):
        return f"{article} {noun}"
    if noun.split(" ")[-1] in _MANY:
        return f"some {noun}"
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {noun}"


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def forms(noun: str, article: str = "a") -> dict[str, str]:
    """The forms of a noun that wordings take: {noun}, {a}, {the}, {The}, {s} (plural)."""
    return {
        "noun": noun,
        "a": a(noun, article),
        "the": f"the {noun}",
        "The": f"The {noun}",
        "s": plural(noun),
    }


def listed(items: Sequence[str]) -> str:
    """`items` as a phrase: "a dog", "a dog and a cat", "a dog, a cat and a car"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def wording(rng: random.Random, text: str) -> str:
    """Small changes that carry no meaning: a polite word before or after, or none."""
    draw = rng.random()
    if draw < 0.12:
        return f"Please {text[0].lower()}{text[1:]}" if text[-1] == "." else f"Please: {text}"
    if draw < 0.2:
        return f"{text[:-1]}, please{text[-1]}"
    return text


# What a user says, by family and event. {a}, {the}, {s}, {noun} are forms of the thing's name, {a2}
# and the like those of a second thing, {n} a number, {state} a state.
ASK: dict[str, tuple[str, ...]] = {
    "appear": (
        "Tell me every time {a} appears.",
        "Let me know whenever {a} comes into view.",
        "Alert me each time {a} shows up.",
        "Say so every time you see {a} arrive.",
        "Watch for {s} and report each one.",
        "Whenever {a} appears, tell me.",
        "Notify me each time {a} enters.",
        "I want to hear about every {noun} that turns up.",
        "Keep an eye out for {s}; call each one out.",
        "Report every time {a} comes in.",
    ),
    "first": (
        "Tell me the first time {a} appears.",
        "Let me know once, when the first {noun} comes.",
        "Alert me only the first time {a} shows up.",
        "Say so when you first see {a}, then never again.",
        "Only the first {noun} matters: tell me when it comes.",
        "Tell me once when {a} appears.",
        "Notify me the first time {a} enters, and only then.",
        "Report the first {noun} you see, just once.",
        "One alert only, please: when {a} first comes in.",
    ),
    "leave": (
        "Tell me every time {the} leaves.",
        "Let me know whenever {the} goes away.",
        "Alert me each time {the} disappears.",
        "Say so every time {the} is gone.",
        "Whenever {the} leaves, tell me.",
        "Notify me each time {the} goes out of view.",
        "I want to know whenever {the} has left.",
        "Report every time {the} vanishes.",
        "Watch {the} and tell me each time it goes.",
    ),
    "state": (
        "Tell me every time {the} is {state}.",
        "Let me know whenever {the} becomes {state}.",
        "Alert me each time {the} turns {state}.",
        "Say so every time {the} goes {state}.",
        "Whenever {the} is {state}, tell me once.",
        "Notify me each time {the} gets {state}.",
        "Watch {the}; report whenever it becomes {state}.",
        "I want to know every time {the} changes to {state}.",
        "Report each time you see {the} turn {state}.",
    ),
    "hold": (
        "Keep telling me each second while {the} is there.",
        "Every second that {the} is in view, say so.",
        "As long as {the} is there, report it each second.",
        "Repeat it every second while you see {the}.",
        "While {the} is visible, tell me every second.",
        "Say it again each second {the} stays.",
        "Report {the} in every second that it is present.",
        "Second by second, tell me while {the} is here.",
    ),
    "hold_once": (
        "Say it once when {the} is there, however long it stays.",
        "When {the} is in view tell me one time; don't repeat it while it stays.",
        "Report {the} once per visit.",
        "Tell me {the} is there, but only once until it leaves.",
        "One message for each visit of {the}.",
        "Mention {the} when it is here, without repeating.",
        "If {the} is visible say so once, not every second.",
        "Once for each stay, tell me that {the} is here.",
    ),
    "either": (
        "Tell me every time {a} or {a2} appears.",
        "Let me know whenever {a} or {a2} comes.",
        "Alert me each time {a} or {a2} shows up.",
        "Watch for {s} and {s2} and report each one.",
        "Whenever {a} or {a2} enters, tell me.",
        "Notify me of every {noun} and every {noun2}.",
        "Say so each time you see {a} or {a2} arrive.",
        "Report all {s} and all {s2} as they come.",
    ),
    "now": (
        "What is in the picture now?",
        "What do you see now?",
        "What is there at the moment?",
        "Which things are in view right now?",
        "Name what is visible now.",
        "What is on screen right now?",
        "What can be seen at this moment?",
        "What does the camera show now?",
    ),
    "colour": (
        "What colour is {the}?",
        "Which colour does {the} have?",
        "Tell me the colour of {the}.",
        "{The} is what colour?",
        "What is the colour of {the}?",
        "Name the colour of {the}.",
        "In what colour is {the}?",
        "Can you tell which colour {the} is?",
    ),
    "how_is": (
        "Is {the} {state} or {state2}?",
        "How is {the} now, {state} or {state2}?",
        "Tell me whether {the} is {state} or {state2}.",
        "Right now, is {the} {state} or {state2}?",
        "{The}: {state} or {state2}?",
        "Would you say {the} is {state} or {state2}?",
        "Look at {the}: is it {state} or {state2}?",
        "At the moment is {the} {state} or {state2}?",
    ),
    "is_there": (
        "Is there {a} now?",
        "Do you see {a} now?",
        "Is {a} in view at the moment?",
        "Can you see {a} right now?",
        "Right now, is there {a}?",
        "Is {a} in the picture?",
        "Does the camera show {a} now?",
        "Is {a} visible now?",
    ),
    "was_there": (
        "Was there {a} earlier?",
        "Have you seen {a} so far?",
        "Did {a} come by before?",
        "Did you see {a} at any time?",
        "Has {a} been here?",
        "Did {a} appear earlier?",
        "Was {a} here at some point?",
        "Have we had {a} yet?",
    ),
    "before": (
        "What was there before {the}?",
        "What came just before {the}?",
        "Before {the}, what did you see?",
        "Which thing came right before {the}?",
        "Name what came before {the}.",
        "What appeared just before {the}?",
        "What had come before {the} came?",
        "And what was it before {the}?",
    ),
    "left_last": (
        "What left last?",
        "Which thing went away last?",
        "What was the last to leave?",
        "What disappeared most recently?",
        "Name what left most recently.",
        "What has just gone?",
        "Which thing has left last?",
        "What was the latest to go?",
    ),
    "came_first": (
        "What came first?",
        "What was the first thing you saw?",
        "Which thing appeared first?",
        "Name the first thing that came.",
        "What was the very first to come?",
        "At the beginning, what came first?",
        "Which was the first thing to show up?",
        "What did you see first of all?",
    ),
    "next": (
        "What comes next? Tell me when it does.",
        "Tell me what appears next.",
        "Wait for the next thing and name it.",
        "When something new comes, say what it is, once.",
        "What will come next? Answer when you see it.",
        "Name the next thing that shows up.",
        "Let me know what the next new thing is.",
        "What is the next to come? Say it then.",
    ),
    "count": (
        "Count the {s} as they come.",
        "Say the number each time another {noun} appears.",
        "Keep a running count of the {s}.",
        "Count every {noun} out loud.",
        "Number the {s} as they arrive.",
        "Each time {a} comes, say how many so far.",
        "Give me a running total of the {s}.",
        "Count along as the {s} appear.",
        "How many {s} come? Count as they do.",
    ),
    "count_state": (
        "Count how often {the} is {state}, as it happens.",
        "Say the number each time {the} goes {state}.",
        "Keep a running count of how often {the} turns {state}.",
        "Count every time {the} becomes {state}.",
        "Count along: how often does {the} get {state}?",
        "Each time {the} is {state}, say how often so far.",
        "Give me a running total of times {the} goes {state}.",
        "Number each time {the} turns {state}.",
    ),
    "count_jumps": (
        "Count how often {the} hits the ground.",
        "Count the bounces of {the}.",
        "Say the number each time {the} bounces.",
        "Keep a running count of the bounces of {the}.",
        "Count along as {the} bounces.",
        "Each time {the} bounces, say how often so far.",
        "Number every bounce of {the}.",
        "Give me a running total of the bounces of {the}.",
    ),
    "total": (
        "How many {s} have come so far?",
        "What is the number of {s} up to now?",
        "How many {s} did you see so far?",
        "Tell me how many {s} there have been.",
        "Up to now, how many {s} came?",
        "Give me the total of {s} so far.",
        "So far, how many {s} have appeared?",
        "Total number of {s} until now?",
    ),
    "every": (
        "Tell me the time every {n} seconds.",
        "Every {n} seconds, say how many seconds have passed.",
        "Report the seconds passed every {n} seconds.",
        "At intervals of {n} seconds, tell me how long it has been.",
        "Call out the time each {n} seconds.",
        "Give me the passed time every {n} seconds.",
        "Once every {n} seconds, say how long it has been.",
        "Tell me how long it has been, every {n} seconds.",
        "Keep time for me: speak up every {n} seconds.",
        "Announce the seconds, one call per {n} seconds.",
        "In steps of {n} seconds, call the time.",
        "Let me hear the time each {n} seconds.",
    ),
    "ladder": (
        "Count up by one every {n} seconds, starting at 1.",
        "Every {n} seconds say the next number, from 1 on.",
        "Start a count that goes up every {n} seconds.",
        "Add one every {n} seconds and say it, from 1.",
        "Say 1, 2, 3 and so on, one number per {n} seconds.",
        "Count slowly from 1, a number each {n} seconds.",
        "Keep counting up, one step every {n} seconds.",
        "Give me the next number each {n} seconds, beginning with 1.",
        "From 1 upwards, one number every {n} seconds.",
        "Count for me with {n} seconds between numbers.",
        "Raise the count by one each {n} seconds.",
        "Each {n} seconds, say one number more.",
    ),
    "countdown": (
        "Tell me when {n} seconds have passed.",
        "Set a timer for {n} seconds.",
        "Let me know in {n} seconds.",
        "Wake me after {n} seconds.",
        "Give me a sign {n} seconds from now.",
        "Start a timer of {n} seconds.",
        "When {n} seconds are over, say so.",
        "Remind me in {n} seconds.",
        "Say something after {n} seconds.",
        "Call me {n} seconds from now.",
    ),
    "withhold": (
        "What is in the picture? Wait {n} seconds before you answer.",
        "In {n} seconds, tell me what you see then.",
        "Answer after {n} seconds: what is there then?",
        "Hold on {n} seconds, then say what is in view.",
        "Look for {n} seconds, then tell me what is there.",
        "Not now: in {n} seconds say what you see.",
        "Say what is there, but only after {n} seconds.",
        "Stay quiet for {n} seconds, then name what you see.",
        "After {n} seconds of silence, tell me what is in the picture.",
        "Wait {n} seconds and then name what is in view.",
    ),
    "window": (
        "For the next {n} seconds only, tell me every time {a} appears.",
        "During the next {n} seconds, report each {noun}; then stop.",
        "Watch for {s} for {n} seconds, then be silent.",
        "Tell me of every {noun}, but only in the next {n} seconds.",
        "Only for {n} seconds from now: call out each {noun}.",
        "In the next {n} seconds alert me each time {a} comes, not later.",
        "Until {n} seconds from now, say so whenever {a} shows up.",
        "{n} seconds long, report every {noun} that appears.",
    ),
    "window_after": (
        "Starting {n} seconds from now, tell me every time {a} appears.",
        "Ignore {s} for {n} seconds, then report each one.",
        "After {n} seconds, and not before, call out every {noun}.",
        "Only once {n} seconds have passed, alert me each time {a} comes.",
        "Say nothing for {n} seconds; from then on report each {noun}.",
        "From {n} seconds on, tell me whenever {a} shows up.",
        "In {n} seconds start to report every {noun} that appears.",
        "Wait {n} seconds, then tell me of every new {noun}.",
    ),
    "lasted": (
        "Each time {the} leaves, say how many seconds it was there.",
        "Tell me how long {the} stays, when it goes.",
        "When {the} has gone, say how many seconds it stayed.",
        "Measure each stay of {the} in seconds; report at its end.",
        "How long does {the} stay? Tell me each time it leaves.",
        "Time {the}: say the seconds when it leaves.",
        "Clock each visit of {the} and tell me its length at the end.",
        "Whenever {the} goes, tell me for how many seconds it was here.",
    ),
    "describe": (
        "Describe what happens.",
        "Comment on everything that happens.",
        "Tell me everything that comes, goes or changes.",
        "Give me a live commentary.",
        "Say what happens as it happens.",
        "Narrate the scene for me.",
        "Be my eyes: tell me of every change.",
        "Keep me posted on all that happens.",
        "Talk me through what you see.",
        "Report each thing that happens.",
    ),
    "arrivals": (
        "Tell me what comes in, nothing else.",
        "Report only new arrivals.",
        "Comment on each thing that appears, not on what leaves.",
        "Say what arrives; ignore departures.",
        "Announce each new thing.",
        "Only tell me of things that appear.",
        "Describe every arrival and skip the rest.",
        "Call out new things only.",
    ),
    "colours": (
        "Tell me what comes in and its colour.",
        "Announce each new thing with its colour.",
        "Report every arrival, colour included.",
        "Say which thing appears and in what colour.",
        "For each new thing tell me colour and name.",
        "Describe every arrival by colour and name.",
        "Call out new things together with their colours.",
        "Whatever comes in, name it and its colour.",
    ),
    "names": (
        "Name each new thing, just its name.",
        "Only say the name of every new thing.",
        "One name for each thing that comes.",
        "Just name what comes in.",
        "Say the name of each arrival and no more.",
        "Give me bare names of new things.",
        "For each new thing say its name only.",
        "Name things as they come, briefly.",
    ),
    "departures": (
        "Tell me what leaves, nothing else.",
        "Report only what goes away.",
        "Comment on each thing that leaves, not on what comes.",
        "Say what goes; ignore arrivals.",
        "Announce each departure.",
        "Only tell me of things that leave.",
        "Describe every departure and skip the rest.",
        "Call out what disappears, only that.",
    ),
    "cadence": (
        "Every {n} seconds describe what you see.",
        "Give me a description each {n} seconds.",
        "Say what is in the picture every {n} seconds.",
        "At intervals of {n} seconds, tell me what is there.",
        "Once every {n} seconds name what is in view.",
        "Comment on the scene each {n} seconds.",
        "Each {n} seconds, report what is visible.",
        "In steps of {n} seconds, describe the picture.",
    ),
    "translate": (
        "Translate the words on screen into English.",
        "Say each word on screen in English.",
        "Whenever a word shows up, give me the English.",
        "Translate every new word for me.",
        "What do the words on screen mean? Tell me as they come.",
        "Put each text on screen into English.",
        "Give me the English for what is written, as it appears.",
        "Read the foreign words and say them in English.",
    ),
    "subtitles": (
        "Translate the subtitles into English.",
        "Give me each new subtitle in English.",
        "Say the English of every new line.",
        "Translate the lines as they come; skip lines you have said.",
        "Put the subtitles into English, each line once.",
        "Interpret the subtitles for me.",
        "Tell me in English what each new line says.",
        "Follow the subtitles and translate every new line.",
    ),
    "steps": (
        "Guide me, one step at a time: {steps}.",
        "Lead me through these steps: {steps}.",
        "Give me the next step when one is done: {steps}.",
        "Help me with this, in order: {steps}.",
        "Walk me through it: {steps}.",
        "Tell me step by step what to do: {steps}.",
        "Coach me, next step only when I have done one: {steps}.",
        "I have to do this, one after the other: {steps}. Guide me.",
    ),
    "screens": (
        "Tell me each time the screen changes.",
        "Let me know whenever a new screen comes up.",
        "Say so every time the slide changes.",
        "Alert me at each new slide.",
        "Report every change of screen.",
        "Whenever another page is shown, tell me.",
        "Notify me when the app shows a new screen, each time.",
        "Watch the screen and call out each change.",
    ),
    "screen_named": (
        "Tell me every time the {noun} screen appears.",
        "Let me know whenever the {noun} page comes up.",
        "Alert me each time the {noun} slide is shown.",
        "Say so whenever you see the {noun} screen.",
        "Report every time {noun} opens.",
        "Whenever {noun} is on the screen, tell me once.",
        "Notify me each time the app goes to {noun}.",
        "Watch for the {noun} screen and call it out.",
    ),
}
