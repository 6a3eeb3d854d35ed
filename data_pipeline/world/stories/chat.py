"""Casual talk of several turns over the stream, with follow-ups that depend on earlier turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from data_pipeline.world.past import long_or_short, remembered
from data_pipeline.world.stories.actor import Actor, named
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.stories.qa import moments, scene
from data_pipeline.world.words import PEOPLE, capital
from joyvl_train.actions import Response
from joyvl_train.memory import Limits, memory_text
from joyvl_train.stream import Turn
from joyvl_train.timeline import Rule

SAY: dict[str, tuple[str, ...]] = {
    "hello": ("Hi!", "Hello there.", "Hey!", "Good morning!", "Hello!", "Hi, are you there?",
              "Hey, hello.", "Good evening."),
    "how": ("How are you?", "How are you doing?", "Are you well?", "How is it going?",
            "How do you feel?", "Everything fine with you?", "How are things?", "You all right?"),
    "thanks": ("Thanks!", "Thank you.", "Thank you very much.", "Many thanks.", "Thanks a lot!",
               "Great, thanks.", "That helps, thank you.", "Cheers, thanks."),
    "bye": ("Bye!", "Goodbye.", "See you later.", "I have to go now.", "Bye for now.",
            "That is all, bye.", "Until next time.", "See you!"),
    "who": ("Who are you?", "What are you?", "What can you do?", "What do you do here?",
            "Tell me about yourself.", "What is your job?", "And who are you?", "Are you a robot?"),
    "name": ("My name is {x}.", "I am {x}.", "Call me {x}.", "I'm {x}, by the way.",
             "People call me {x}.", "This is {x} speaking.", "You can call me {x}.",
             "Hello, {x} here."),
    "name_back": ("What is my name?", "Do you remember my name?", "Who am I?",
                  "Can you say my name?", "What am I called?", "Do you know who I am?",
                  "Say my name.", "What do you call me?"),
    "like": ("My favourite is the {x}.", "I really like the {x}.", "I love the {x} most.",
             "The {x} is what I like best.", "I am fond of the {x}.", "Nothing beats the {x}.",
             "Of all things I like the {x}.", "The {x} makes me happy."),
    "like_back": ("What is my favourite?", "What do I like best?", "What did I say I like?",
                  "Do you remember what I like?", "Which thing do I love most?",
                  "What am I fond of?", "What makes me happy?", "What was my favourite again?"),
    "see": ("What is there to see?", "Do you see something?", "Anything in view?",
            "What are you looking at?", "So, what do you see?", "What have we got here?",
            "Describe the view for me.", "What is in front of you?"),
    "it_colour": ("What colour is it?", "And its colour?", "Which colour does it have?",
                  "In which colour?", "What is its colour?", "Can you tell its colour?",
                  "And what colour, please?", "Its colour is what?"),
    "it_there": ("Is it still there?", "Do you still see it?", "Is it there still?",
                 "Has it stayed?", "Is it still in view?", "Can you still see it?",
                 "It is still there, isn't it?", "Still there?"),
    "it_like": ("Do you like it?", "Is it nice?", "Do you find it pretty?", "Does it please you?",
                "Are you fond of it?", "Is it to your taste?", "Is it something you like?",
                "You like it, don't you?"),
    "again": ("What was that again?", "Say that again.", "Sorry, what did you say?",
              "Could you repeat that?", "Pardon?", "Once more, please.",
              "I did not get that, again?", "Repeat, please."),
}  # fmt: skip


@dataclass
class Talk:
    """What was said so far, as far as later turns depend on it."""

    draft: Draft
    name: str = ""
    favourite: str = ""
    subject: Actor | None = None
    liked: Actor | None = None
    last: tuple[str, str, Rule] | None = None
    """The latest turn: its event, its reply and the rule of that."""

    done: set[str] = field(default_factory=set)

    def turn(self, second: int, event: str, thing: str, said: str, rule: Rule) -> None:
        """One turn of the user's with its reply; nobody asks the same twice running."""
        if self.last is not None and self.last[0] == event:
            raise Clash(f"{event} was said just now")
        _, text = self.draft.pick(event, [thing], SAY[event])
        query = self.draft.ask(second, text.format(x=thing), plain=True)
        self.draft.reply(second, said, query, rule)
        self.last = (event, said, rule)
        self.done.add(event)


Move = Callable[[Talk, int], None]


def _exact(text: str) -> Rule:
    return Rule("exact", (text,))


def _fixed(event: str, said: str, *facts: str) -> Move:
    """A turn with one reply, said once."""

    def move(talk: Talk, second: int) -> None:
        if event in talk.done:
            raise Clash(f"{event} was said")
        if event == "hello" and talk.last is not None:
            raise Clash("the talk has begun")
        if event == "thanks" and talk.last is None:
            raise Clash("nothing to thank for")
        talk.turn(second, event, "you", said, Rule("key_facts", facts) if facts else _exact(said))

    return move


hello = _fixed("hello", "Hello!", "hello|hi|hey")
how = _fixed("how", "I am fine, thanks.", "fine|well|good|great")
thanks = _fixed("thanks", "You are welcome.", "welcome")
bye = _fixed("bye", "Goodbye!", "goodbye|bye")
who = _fixed("who", "I watch and tell you what I see.", "watch|see")


def met(person: str) -> str:
    """What is said to somebody who has told a name."""
    return f"Hello, {person}."


def liked(favourite: str) -> str:
    """What is said to somebody who has told what they like."""
    return f"The {favourite} is nice."


def likeable(draft: Draft) -> str:
    """Something that somebody may like best."""
    things = [name for name in draft.countable if draft.thing(name).category != "person"]
    return draft.rng.choice(things)


def name(talk: Talk, second: int) -> None:
    if talk.name:
        raise Clash("the name is known")
    person = talk.draft.rng.choice(PEOPLE)
    talk.turn(second, "name", person, met(person), Rule("key_facts", (person,)))
    talk.name = person


def name_back(talk: Talk, second: int) -> None:
    if not talk.name:
        raise Clash("no name yet")
    said = f"You are {talk.name}."
    talk.turn(second, "name_back", talk.name, said, Rule("key_facts", (talk.name,)))


def like(talk: Talk, second: int) -> None:
    if talk.favourite:
        raise Clash("the favourite is known")
    favourite = likeable(talk.draft)
    talk.turn(second, "like", favourite, liked(favourite), Rule("key_facts", (favourite,)))
    # From here on "it" would be the favourite.
    talk.favourite, talk.subject = favourite, None


def like_back(talk: Talk, second: int) -> None:
    if not talk.favourite:
        raise Clash("no favourite yet")
    rule = Rule("key_facts", (talk.favourite,))
    talk.turn(second, "like_back", talk.favourite, f"The {talk.favourite}.", rule)
    talk.subject = None


def see(talk: Talk, second: int) -> None:
    talk.draft.all_seen()
    here = talk.draft.present(second)
    if len(here) != 1:
        raise Clash("not one thing to see")
    (actor,) = here
    talk.turn(second, "see", actor.picture.name, f"I see {actor.a}.", named(actor))
    # Of a person nobody says "it".
    talk.subject = None if actor.picture.category == "person" else actor


def it_colour(talk: Talk, second: int) -> None:
    actor = _subject(talk)
    if not actor.colour or not actor.there(second) or "it_colour" in talk.done:
        raise Clash("no colour to tell")
    said, rule = f"It is {actor.colour}.", Rule("key_facts", (actor.colour,))
    talk.turn(second, "it_colour", f"{actor.colour} {actor.picture.name}", said, rule)


def it_there(talk: Talk, second: int) -> None:
    actor = _subject(talk)
    yes = actor.there(second)
    if not yes and talk.draft.recent_other(actor, second):
        raise Clash("another one of its kind is there")
    said = (
        f"Yes, the {actor.picture.name} is there." if yes else f"No, the {actor.picture.name} left."
    )
    rule = Rule("key_facts", ("yes" if yes else "no",))
    talk.turn(second, "it_there", actor.picture.name, said, rule)
    if not yes:  # what has left is no more spoken of
        talk.subject = None


def it_like(talk: Talk, second: int) -> None:
    actor = _subject(talk)
    if actor is talk.liked:
        raise Clash("that was told of this one")
    said = f"Yes, I like the {actor.picture.name}."
    talk.turn(second, "it_like", actor.picture.name, said, named(actor))
    talk.liked = actor


def again(talk: Talk, second: int) -> None:
    if talk.last is None:
        raise Clash("nothing was said yet")
    event, said, rule = talk.last
    if event == "thanks":
        raise Clash("nothing to say again")
    talk.turn(second, "again", said, said, rule)


def _subject(talk: Talk) -> Actor:
    if talk.subject is None:
        raise Clash("nothing is being talked about")
    return talk.subject


SMALL: tuple[Move, ...] = (hello, how, who, name, name_back, like, like_back, thanks, again)
LOOKING: tuple[Move, ...] = (see, see, it_colour, it_there, it_like, it_like, hello, again)
MEMORY: tuple[Move, ...] = (name, like, name_back, like_back, see, how, hello, it_there)
LONG_AGO: tuple[Move, ...] = (name_back, like_back, name_back, like_back, how, hello, name, like)


def _talk(draft: Draft, moves: tuple[Move, ...], talk: Talk | None = None) -> None:
    """Turns at random seconds: one after the other, with more weight on follow-ups."""
    scene(draft, most=1 if see in moves else 2, low=3, high=6)
    talk = talk or Talk(draft)
    turns = moments(draft, start=0, gap=3)
    for second in turns[:-1]:
        for move in draft.rng.sample(moves, len(moves)):
            mark, subject = draft.mark(), talk.subject
            try:
                move(talk, second)
                break
            except Clash:
                draft.undo(mark)
                talk.subject = subject
    if turns and talk.last:
        move = bye if "thanks" in talk.done else draft.rng.choice((bye, thanks))
        move(talk, turns[-1])
    if len(draft.events) < 4:
        raise Clash("too little was said")
    draft.must_own()


def small_talk(draft: Draft) -> None:
    _talk(draft, SMALL)


def looking(draft: Draft) -> None:
    _talk(draft, LOOKING)


def memory(draft: Draft) -> None:
    _talk(draft, MEMORY)


LONG_AGO_CHUNKS = 30
"""Chunks that may lie between what was told and the clip."""


def long_ago(draft: Draft) -> None:
    """A name, a liking or both were told minutes or up to an hour ago, which memory alone holds,
    among what else was said and seen since."""
    rng, talk = draft.rng, Talk(draft)
    chunk = rng.choice((40, 60, 100))
    stops = [chunk * n - 10 for n in range(1, long_or_short(LONG_AGO_CHUNKS, rng) + 1)]
    said = _told_before(talk)
    # What is told of somebody is told at the start, as a rule.
    last = min(stops[-1], 60) if rng.random() < 0.6 else stops[-1]
    seconds = sorted(rng.sample(range(1, last), len(said)))
    turns = [
        Turn(second, queries=(asked,), action=Response(answer))
        for second, (asked, answer) in zip(seconds, said, strict=True)
    ]
    draft.opening = memory_text(remembered(turns, stops, draft.things, Limits(), rng))
    draft.meta["before"] = stops[-1]
    _talk(draft, LONG_AGO, talk)
    if not talk.done & {"name_back", "like_back"}:
        raise Clash("nothing was asked back")


def _told_before(talk: Talk) -> list[tuple[str, str]]:
    """What the user said before the clip, with the replies: of the name and the liking at least
    one, which `talk` knows from then on."""
    draft, rng = talk.draft, talk.draft.rng
    told = rng.choice((("name",), ("like",), ("name", "like"), ("name", "like")))
    small = {"how": "I am fine, thanks.", "thanks": "You are welcome.", "hello": "Hello!"}
    events = [*told, *rng.sample(sorted(small), rng.randint(0, 2))]
    rng.shuffle(events)
    said = []
    for event in events:
        thing, answer = "you", small.get(event, "")
        if event == "name":
            thing = talk.name = rng.choice(PEOPLE)
            answer = met(thing)
        elif event == "like":
            thing = talk.favourite = likeable(draft)
            answer = liked(thing)
        _, text = draft.pick(event, [thing], SAY[event])
        said.append((text.format(x=thing), answer))
    return said


KINDS = {
    "small_talk": Kind(small_talk),
    "looking": Kind(looking, all_seen=True),
    "memory": Kind(memory),
    "long_ago": Kind(long_ago, 2.0),
}


def texts() -> list[str]:
    """What users say in talk, for a tokenizer to learn from."""
    return [capital(text.format(x=PEOPLE[0])) for lines in SAY.values() for text in lines]
