"""What the oracle says to each prompt: from the log of a clip, and where it lies."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.agents.event_lines import line_of, read_line
from data_pipeline.world.pictures import picture_set
from data_pipeline.world.words import a, capital
from joyvl_train.timeline import Timeline
from tests.data_pipeline.truth import Thing, Truth


@dataclass(frozen=True)
class Ask:
    """A question: its prompt, fields, the seconds of its pictures, and the clip that they show.

    gold: the timelines that are right on this clip, where the test has said which.
    """

    name: str
    fields: Mapping[str, Any]
    seconds: tuple[int, ...]
    clip: str
    known: Truth | None
    gold: tuple[Timeline, ...]

    @property
    def truth(self) -> Truth:
        assert self.known is not None, f"{self.name} was shown no pictures"
        return self.known

    @property
    def span(self) -> range:
        """From the first second shown to the last."""
        return range(self.seconds[0], self.seconds[-1] + 1)


def verdict(yes: bool, reason: str = "By the log.") -> dict[str, Any]:
    return {"reason": reason, "verdict": "yes" if yes else "no"}


def said_in(text: str) -> str:
    """The last text in quotes inside another, or all of it: what a target says that it is."""
    found = re.findall(r'"([^"]+)"', text)
    return found[-1] if found else text


# Alerts.


def video_filter(ask: Ask) -> Any:
    return verdict(any(thing.came > 0 for thing in ask.truth.things))


def target_proposer(ask: Ask) -> Any:
    span, truth = ask.span, ask.truth
    targets: dict[str, dict[str, Any]] = {}

    def propose(kind: str, target: str, second: int, instruction: str, response: str) -> None:
        fits = second in span[2:] and truth.first(target, span.start, second) is None
        if fits and truth.seen(target, second) and len(targets) < ask.fields["most"]:
            told = {"kind": kind, "target": target, "second": second}
            targets.setdefault(target, told | {"instruction": instruction, "response": response})

    for thing in truth.things:
        noun = thing.a
        if thing.picture.name != "person" and truth.meant(noun) is not None:
            text = f"Tell me when {noun} appears."
            propose("object", noun, thing.came, text, f"{capital(noun)} is there.")
        for n in range(1, len(thing.states)):
            state, second = thing.states[n], thing.came + n
            told = f"the {thing.picture.name} is {state}"
            if state != thing.states[n - 1] and (meant := truth.meant(told)) and meant.states:
                propose("state", told, second, f"Tell me when {told}.", f"{capital(told)}.")
    return {"targets": list(targets.values())}


def absent_proposer(ask: Ask) -> Any:
    shown = {thing.picture.name for thing in ask.truth.things}
    others = [one for one in picture_set(ask.truth.pictures) if one.name not in shown]
    noun = a(others[sum(map(ord, ask.clip)) % len(others)].name)
    told = {"kind": "object", "target": noun, "instruction": f"Tell me when {noun} appears."}
    return {"targets": [told]}


def window_verifier(ask: Ask) -> Any:
    told, second = ask.fields, ask.fields["second"]
    truth, target = ask.truth, said_in(ask.fields["target"])
    about = {truth.meant(told[key]) for key in ("instruction", "response")} | {truth.meant(target)}
    early = truth.first(target, told["start"], second)
    one_thing = len({None if meant is None else meant.picture for meant in about}) == 1
    return verdict(one_thing and truth.seen(target, second) and early is None)


def dense_precheck(ask: Ask) -> Any:
    return verdict(ask.truth.seen(said_in(ask.fields["target"]), ask.seconds[0]))


def localizer(ask: Ask) -> Any:
    target = said_in(ask.fields["target"])
    found = next((t for t in ask.seconds if ask.truth.seen(target, t)), None)
    return verdict(found is not None) | {"second": ask.seconds[0] if found is None else found}


# Questions.


def asker(ask: Ask) -> Any:
    truth, second, stop = ask.truth, ask.fields["second"], ask.fields["stop"]
    earlier = ask.fields["earlier"]
    match ask.fields["direction"]:
        case "backward":
            found = [_left_last(truth, second)]
            drafts = [(t, "Which thing left last?", capital(t.a), second) for t in found if t]
        case "present":
            drafts = [(t, f"Is there {t.a} now?", "Yes", second) for t in truth.here(second)]
        case _:
            coming = [t for t in truth.things if second < t.came <= stop][:1]
            drafts = [
                (t, "Which thing comes next?", capital(t.a), t.came)
                for t in coming
                if truth.first(t.a, second, t.came) is None
            ]
    for thing, question, answer, due in drafts:
        if question not in earlier and truth.meant(thing.a) is not None:
            told = {"evidence": thing.a, "question": question}
            return told | {"answer": f"{answer}.", "answer_second": due}
    none = {"evidence": "an empty place", "question": "What is it like here?"}
    return none | {"answer": "Empty.", "answer_second": second}


def _left_last(truth: Truth, second: int) -> Thing | None:
    gone = [t for t in truth.things if t.gone <= second]
    last = [t for t in gone if t.gone == max(thing.gone for thing in gone)]
    # What is there again can still be seen.
    return last[0] if len(last) == 1 and not truth.seen(last[0].a, second) else None


def answer_checker(ask: Ask) -> Any:
    told, truth = ask.fields, ask.truth
    second, due, answer = told["second"], told["answer_second"], told["answer"]
    meant = truth.meant(answer)
    match told["question"].split()[0]:
        case "Is":
            seen = truth.seen(told["question"], second)
            return verdict(due == second and answer == ("Yes." if seen else "No."))
        case "Which" if "left last" in told["question"]:
            last = _left_last(truth, second)
            fits = last is not None and meant is not None and meant.fits(last)
            return verdict(due == second and fits)
        case "Which" if "comes next" in told["question"]:
            coming = [t for t in truth.things if t.came > second][:1]
            fits = meant is not None and any(meant.fits(t) for t in coming)
            return verdict(fits and due == coming[0].came)
    # Any other question is about what is seen at some time.
    return verdict(truth.first(answer, 0, due + 1) is not None)


# Counting.


def reappearance_filter(ask: Ask) -> Any:
    names = {thing.picture.name: thing.picture for thing in ask.truth.things}
    things = []
    for name, shown in sorted(names.items()):
        seconds = ask.truth.comings(name, 1, ask.truth.seconds)
        if len(seconds) >= 2 and ask.truth.meant(name) is not None:
            things.append({"thing": a(name, shown.article), "seconds": seconds})
    return verdict(bool(things)) | {"things": things[:3]}


def second_labeller(ask: Ask) -> Any:
    second, meant = ask.fields["second"], ask.truth.meant(said_in(ask.fields["thing"]))
    mine = [thing for thing in ask.truth.things if meant and meant.fits(thing)]
    visible = sum(thing.there(second) for thing in mine)
    new = sum(thing.came == second for thing in mine)
    return verdict(True) | {"visible": visible, "new": new}


# Talk.


def commentator(ask: Ask) -> Any:
    second = ask.fields["second"]
    new = [t for t in ask.truth.things if t.came == second and ask.truth.meant(t.a) is not None]
    return said(f"{capital(new[0].a)} has come." if new else "")


def said(text: str) -> dict[str, Any]:
    return {"speak": "yes" if text else "no", "text": text}


def user_agent(ask: Ask) -> Any:
    here = [t for t in ask.truth.here(ask.fields["second"]) if ask.truth.meant(t.a) is not None]
    return said(f"Look, {here[-1].a}!" if here else "")


def companion_agent(ask: Ask) -> Any:
    last = ask.fields["dialogue"][-1]
    return said(f"Yes, I like {last.partition('Look, ')[2].rstrip('!')}." if "Look" in last else "")


# What is handed over.

BUILT = "It was first built in 1886, by two brothers."


def planner(ask: Ask) -> Any:
    truth = ask.truth
    known = [(s, t) for s in ask.span for t in truth.here(s) if truth.meant(t.a) is not None]
    if not known:
        told = {"reason": "An empty place.", "second": ask.span.start, "query": "What is this?"}
        return told | {"note": "Let me see.", "question": "What place is this?"}
    second, thing = known[len(known) // 2]
    return {
        "reason": "Rare knowledge.",
        "second": second,
        "query": f"When did they first make {thing.a} like this one?",
        "note": "Let me look that up.",
        "question": f"In which year was {thing.a} like the one shown first made, and by whom?",
    }


def timestamp_verifier(ask: Ask) -> Any:
    """A question that names nothing could be asked at any time."""
    query, second = ask.fields["query"], ask.fields["second"]
    named = ask.truth.meant(query) is not None
    return verdict(not named or ask.truth.first(query, 0, second + 1) is not None)


def visual_verifier(ask: Ask) -> Any:
    return verdict(ask.truth.seen(ask.fields["query"], ask.fields["second"]))


def difficulty_verifier(ask: Ask) -> Any:
    return verdict(not ask.fields["question"].startswith("Is "))


def background(ask: Ask) -> Any:
    return {"work": "By what is known of it.", "verdict": "yes", "answer": BUILT}


def foreground_rewriter(ask: Ask) -> Any:
    result = ask.fields["result"]
    return {"text": f"About what you asked: {result}"}


# Memory.


def summarizer(ask: Ask) -> Any:
    span = range(ask.fields["start"], ask.fields["stop"] + 1)
    came = [f"At {t.came} s {t.a} came." for t in ask.truth.things if t.came in span]
    return {"summary": " ".join([*came, *ask.fields["said"]]) or "Nothing happened."}


# Whole annotations, where the test has told what is right.


def local_verifier(ask: Ask) -> Any:
    """A line is right in its own second and, where it is repeated, in the last one of its state;
    one that hands something over is known by what it hands over, too."""
    second, text = ask.fields["second"], ask.fields["text"]
    lines = [event for gold in ask.gold for event in gold.of("assistant")]
    said = [event for event in lines if line_of(event).endswith(f"assistant: {text}")]
    last = [event.held_seconds[-1] for event in said if event.repeat]
    return verdict(second in [*last, *(event.second for event in said)])


def global_verifier(ask: Ask) -> Any:
    """All that is said is right; that nothing is missing is for the test to say."""
    right = {line_of(event) for gold in ask.gold for event in gold.of("assistant")}
    told = [(line, read_line(line)) for line in ask.fields["annotation"]]
    said = [line for line, read in told if read is not None and read.role == "assistant"]
    return verdict(right.issuperset(said))


def grounding_checker(ask: Ask) -> Any:
    return verdict(ask.truth.seen(ask.fields["text"], ask.fields["second"]))


def summary_verifier(ask: Ask) -> Any:
    return verdict(bool(ask.fields["summary"].strip()))


ANSWERS: dict[str, Callable[[Ask], Any]] = {
    one.__name__: one
    for one in (
        video_filter, target_proposer, absent_proposer, window_verifier, dense_precheck, localizer,
        asker, answer_checker, reappearance_filter, second_labeller, commentator, user_agent,
        companion_agent, planner, timestamp_verifier, visual_verifier, difficulty_verifier,
        background, foreground_rewriter, summarizer, local_verifier, global_verifier,
        grounding_checker, summary_verifier,
    )
}  # fmt: skip


# Lies.


def turned(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    """The other verdict."""
    if "verdict" not in data:
        return data
    return {**data, "verdict": "no" if data["verdict"] == "yes" else "yes"}


def other_targets(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    """A wrong second, or another thing."""
    name = rng.choice([one.name for one in picture_set(ask.truth.pictures)])
    for target in data["targets"]:
        if "second" not in target or rng.random() < 0.5:
            target["target"] = a(name)
            target["instruction"] = f"Tell me when {a(name)} appears."
            target["response"] = f"{capital(a(name))} is there."
            if "second" not in target:
                del target["response"]
        else:
            target["second"] = max(0, target["second"] + rng.choice((-4, -2, -1, 1, 2, 4)))
    return data


def other_second(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    return {**data, "second": max(0, data["second"] + rng.choice((-2, -1, 1, 2))), "verdict": "yes"}


def other_answer(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    """Another answer, or one that comes before what it rests on."""
    name = rng.choice([one.name for one in picture_set(ask.truth.pictures)])
    moved = data["answer_second"] + rng.choice((-2, -1, 1, 2))
    return [
        {**data, "answer": f"{capital(a(name))}."},
        {**data, "answer": "No."},
        {**data, "answer_second": max(0, moved)},
    ][rng.randrange(3)]


def other_count(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    return {**data, "new": max(0, data["new"] + rng.choice((-1, 1)))}


def other_things(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    name = rng.choice([one.name for one in picture_set(ask.truth.pictures)])
    return verdict(True) | {"things": [{"thing": a(name), "seconds": [1, 2]}]}


def other_line(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    """Tells of something else."""
    name = rng.choice([one.name for one in picture_set(ask.truth.pictures)])
    return {**data, "speak": "yes", "text": f"Look, {a(name)}!"}


def other_plan(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    """Points at something else, or asks at another time."""
    name = rng.choice([one.name for one in picture_set(ask.truth.pictures)])
    if rng.random() < 0.5:
        return {**data, "query": f"When did they first make {a(name)} like this one?"}
    return {**data, "second": max(0, data["second"] + rng.choice((-9, -3, 3, 9)))}


def other_result(ask: Ask, data: dict[str, Any], rng: random.Random) -> Any:
    return {"text": f"It was in {rng.randint(1901, 1999)}."}


LIES: dict[str, Callable[[Ask, Any, random.Random], Any]] = {
    "*": turned,
    "target_proposer": other_targets,
    "absent_proposer": other_targets,
    "localizer": other_second,
    "asker": other_answer,
    "second_labeller": other_count,
    "reappearance_filter": other_things,
    "commentator": other_line,
    "user_agent": other_line,
    "companion_agent": other_line,
    "planner": other_plan,
    "foreground_rewriter": other_result,
}
