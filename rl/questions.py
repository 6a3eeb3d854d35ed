"""Turn-based questions as windows of one turn: answered `group` times, rewarded as streams are.

A question is a clip of one second, in which its answer is due. So the rewards, the advantages and
the loss are those of streams; what does not apply to it, such as silence, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from joyvl_train import samples
from joyvl_train.actions import Response
from joyvl_train.conversation import clean
from joyvl_train.heldout import Episode, step_of
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.samples import question_frames
from joyvl_train.stream import StreamSettings, Turn
from joyvl_train.timeline import Clip, Event, Rule, Timeline
from rl.rollout import Reply, Rollout, Sampled, draw_seed
from rl.windows import Window

FAMILY = "question"


class Answering(Protocol):
    """What is used of an `engine.Engine` that was made with `details`."""

    @property
    def system(self) -> str: ...
    @property
    def renderer(self) -> Renderer: ...

    def generate_batch(
        self, prompts: Sequence[Rendered], *, seeds: Sequence[int]
    ) -> Sequence[Reply]: ...


class Question(samples.Question, Protocol):
    """A turn-based item, and the rule that judges an answer."""

    @property
    def rule(self) -> Rule: ...


def question_window(number: int) -> Window:
    """The window of question `number` of its pool."""
    return Window(number, "question", 0, 1, 0)


def timeline_of(window: Window, item: Question) -> Timeline:
    """A question as a clip of one second."""
    events = (
        Event("q", 0, "user", clean(item.question) or "?"),
        Event("a", 0, "assistant", clean(item.answer), answers="q", rule=item.rule, late=0),
    )
    return Timeline(Clip(window.key, 1.0), FAMILY, "questions", events)


def ask(
    engine: Answering,
    windows: Sequence[Window],
    items: Sequence[Question],
    group: int,
    *,
    side: int,
    settings: StreamSettings | None = None,
    seed: int = 0,
    step: int = 0,
) -> list[list[Rollout]]:
    """`group` answers to each question, each with a prompt of its own to the engine. side: that of
    its pictures; settings: of the streams, by whose codec they are shown."""
    prompts, seeds = [], []
    for window, item in zip(windows, items, strict=True):
        rendered = engine.renderer.render_question(
            item.question,
            question_frames(item, side, settings or StreamSettings()),
            None,
            item.context,
            engine.system,
            [Response(clean(said)) for said in item.before],
            item.further,
        )
        prompts += [rendered] * group
        seeds += [draw_seed(seed, step, window, number) for number in range(group)]
    replies = engine.generate_batch(prompts, seeds=seeds) if prompts else []
    found: list[list[Rollout]] = []
    for place, (window, item) in enumerate(zip(windows, items, strict=True)):
        timeline = timeline_of(window, item)
        turn = Turn(0, ("picture",), (timeline.events[0].text,))
        answers: list[Rollout] = []
        for number in range(group):
            reply = replies[place * group + number]
            episode = Episode(timeline)
            episode.note(step_of(turn, reply), None)
            answers.append(
                Rollout(
                    window,
                    number,
                    timeline,
                    episode.trace("policy"),
                    (Sampled(0, reply.tokens, reply.logprobs),),
                    "",
                    (),
                    reply.action is None,
                    tuple(episode.gold),
                    prompts[place * group],
                    (0,),
                )
            )
        found.append(answers)
    return found
