"""GRPO on windows of streams: draw, roll out, reward, compare within groups, step.

The loop is our own, on accelerate, and not TRL's `GRPOTrainer` (1.16). That takes images from
dataset columns and only inside the prompt, and generates a prompt's completion in one go; a rollout
here is a dialogue of many turns, each with frames of its own. Its `rollout_func` would have to
smuggle them past the collator, recompute what the engine knows, and override the forward that makes
log-probabilities: more code than this module, tied to private methods. What is kept of the usual
trainers is theirs: accelerate spreads, accumulates and saves; the loss is one module.

Every draw is named by (seed, step, window, rollout), windows are dealt to ranks in turn and to
optimizer steps by their numbers (`rl.passes`), and each token's weight is its share of the whole
global batch. So one rank and several do the same.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from joyvl_train.branching import BranchingEngine
from joyvl_train.collate import Batch
from joyvl_train.config import EngineConfig, TrainConfig, UserError
from joyvl_train.memory import Summary
from joyvl_train.parts import adamw, arithmetic, in_bf16, use_master_weights
from joyvl_train.ranks import is_first, wait_for_all
from joyvl_train.rendering import Renderer
from joyvl_train.saved_steps import drop_partial, last_step, read_state, write_state
from joyvl_train.stream import StreamSettings, Turn
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.timing import said_right
from joyvl_train.trainer import generating
from joyvl_train.training import prepare_engine, schedule
from rl.groups import Group, judged, of_groups, told
from rl.judge import Judge
from rl.passes import Passes, evened, part_of, rows_of
from rl.plan import Plan
from rl.policy_loss import PolicyLoss, Reference
from rl.questions import Question, ask
from rl.rewards import brief, routed
from rl.rollout import Rollout, follow_gold, roll
from rl.served import ServedSampler
from rl.settings import Settings
from rl.spread import accelerator_of, gathered, kept_vision, reduced, synchronize
from rl.supervised import Supervised
from rl.windows import Opened, Window, open_window, within

_AGAIN = 4
"""More rounds of draws, while no window could be rolled out."""

Summaries = Callable[[int], Sequence[Summary]]
"""Clip -> summaries that its record holds."""


class Grpo:
    """Trains `model` in place; saved steps go to `folder` and are resumed from.

    summarize: (clip's timeline, turns) -> what memory says of turns left behind. judge: of texts
    that no rule judges. questions: turn-based ones, by number. supervised: (rank, ranks) -> rows of
    gold streams that are learnt from beside the rollouts. served: (rank, ranks) -> what draws
    the rollouts of windows instead of the policy itself. Raises `UserError` where the run can't be
    trained as asked.
    """

    def __init__(
        self,
        model: Any,
        renderer: Renderer,
        plan: Plan,
        stream: StreamSettings,
        settings: Settings,
        train: TrainConfig,
        engine: EngineConfig,
        folder: Path,
        *,
        seed: int = 0,
        summarize: Callable[[Timeline, Sequence[Turn]], str] | None = None,
        summaries: Summaries = lambda clip: (),
        judge: Judge | None = None,
        questions: Callable[[int], Question] | None = None,
        supervised: Callable[[int, int], Supervised] | None = None,
        served: Callable[[int, int], ServedSampler] | None = None,
        checkpointing: bool = False,
    ) -> None:
        prepare_engine(engine)
        self.settings, self.train, self._stream = settings, train, stream
        self._plan, self._renderer, self._folder, self._seed = plan, renderer, folder, seed
        self._summarize, self._summaries, self._judge = summarize, summaries, judge
        self._questions = questions
        if not engine.deepspeed or arithmetic(train.precision) == "fp32":
            use_master_weights(model, train.precision)
        # Before the model is spread over the ranks.
        reference = Reference(model, settings.policy) if settings.policy.kl else None
        spread = engine.deepspeed.get("zero_optimization", {}).get("stage") == 3
        self._copy = copy.deepcopy(model) if spread else None
        loss = PolicyLoss(model, settings.policy, vision=kept_vision(model, spread), in_step=spread)
        if checkpointing:
            loss.gradient_checkpointing_enable({"use_reentrant": False})
        self._accelerator = accelerator_of(train, engine)
        prepared, optimizer = self._accelerator.prepare(loss, adamw(loss, train))
        self._raw: PolicyLoss = self._accelerator.unwrap_model(prepared)
        self._supervised = supervised(self.rank, self.ranks) if supervised is not None else None
        weight = 1.0 if self._supervised is None else self._supervised.weight
        self._passes = Passes(
            self._accelerator,
            prepared,
            optimizer,
            settings,
            train.max_grad_norm,
            gold_weight=weight,
            reference=reference,
        )
        self._served = served(self.rank, self.ranks) if served is not None else None
        self.step = 0
        self.share = 0.0
        """How much of train.minutes is over, on every rank alike."""
        self.left_out: Counter[str] = Counter()
        """Windows, sequences and verdicts that could not be had or trained on, by reason."""
        self._strange = 0  # steps in a row in which the policy spoke far too seldom or too often

    # A step

    def groups(self, step: int) -> tuple[list[Group], int]:
        """This rank's groups of a step, all that were rolled out, and how many of all ranks'
        teach something. Collective.

        Raises `UserError` where no window can be drawn, though none rests, or none rolled out.
        """
        found: list[Group] = []
        drawn: list[Window] = []
        teaching = rolled = 0
        resting = self._plan.resting
        if self._served is not None:
            self._served.take(self.model)
            wait_for_all()
        for round_ in range(self.settings.rounds + _AGAIN):
            windows = self._plan.windows(step, self.settings.windows, drawn)
            drawn += windows
            found += self._rolled(windows[self.rank :: self.ranks], step)
            teaching = self._sum(sum(g.advantages is not None for g in found))
            rolled = self._sum(len(found))
            done = round_ + 1 >= self.settings.rounds and rolled
            if teaching >= self.settings.windows or not windows or done:
                break
        if not rolled and (drawn or self._plan.resting == resting):
            raise self._nothing_to_learn_from(step, len(drawn))
        numbers = {window.key: number for number, window in enumerate(drawn)}
        for group in found:
            number = numbers[group.window.key]
            group.part = part_of(number, len(drawn), self.settings.updates)
        told_of = [(g.window.key, g.pass_rate, g.advantages is not None) for g in found]
        for key, passed, taught in gathered(told_of):
            if passed is not None:
                self._plan.note(step, key, passed, taught)
        return found, teaching

    def _nothing_to_learn_from(self, step: int, drawn: int) -> UserError:
        """Collective."""
        if not drawn:
            why = _counts(self._plan.passed_over)
            return UserError(
                f"windows.mix: step {step} finds no window to draw ({why}); give a kind that these "
                "clips hold a weight, or take other clips"
            )
        why = _counts(self._sum_of_left_out())
        return UserError(
            f"none of {drawn} windows of step {step} could be rolled out ({why}); the run's "
            "rejects.jsonl names the clips: mend them, or take others"
        )

    def _rolled(self, windows: Sequence[Window], step: int) -> list[Group]:
        asked = [window for window in windows if window.kind == "question"]
        others = [w for w in windows if w.kind != "question"]
        pairs = [(window, o) for window in others if (o := self._opened(window, step))]
        opened, drawn = [each for _, each in pairs], [*(window for window, _ in pairs), *asked]
        settings = self.settings
        golds: list[Rollout | None] = [None] * (len(opened) + len(asked))
        if settings.gold:
            for place, each in enumerate(opened):
                golds[place] = follow_gold(each, self._renderer, settings.group)
        names = {"seed": self._seed, "step": step}
        rolled: list[list[Rollout]] = []
        if self._served is not None:
            rolled = roll(self._served, opened, settings.group, rows=settings.rows, **names)
        if self._served is None or self._questions is not None:
            # Questions, if there are any: every rank comes by here, for all give of their weights.
            with self.validating(), self.policy_model() as plain:
                engine = self._engine(plain)
                if self._served is None:
                    rolled = roll(engine, opened, settings.group, rows=settings.rows, **names)
                if asked:
                    assert self._questions is not None
                    items = [self._questions(window.clip) for window in asked]
                    shown = {"side": settings.side, "settings": self._stream}
                    rolled += ask(engine, asked, items, settings.group, **shown, **names)
        if self._judge is not None:
            lost_texts = self._judge.look([each for rollouts in rolled for each in rollouts])
            self.left_out.update({f"judge: {why}": n for why, n in lost_texts.items()})
        if lost := sum(not rollouts for rollouts in rolled):
            self.left_out["window without frames"] += lost
        every = zip(drawn, rolled, golds, strict=True)
        return [self._judged(window, r, gold) for window, r, gold in every if r]

    def _engine(self, plain: Any) -> BranchingEngine:
        settings = self.settings
        return BranchingEngine(
            plain,
            self._renderer,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.policy.temperature,
            top_p=settings.top_p,
            system=settings.system,
            details=True,
        )

    def _opened(self, window: Window, step: int) -> Opened | None:
        """The window just before its first second; None, counted, where its record is broken, or a
        picture that it needs."""
        tell = self._summarize
        try:
            timeline, frames = self._plan.clip(window)
            window = within(window, timeline)
            opened = open_window(
                window,
                timeline,
                frames,
                self._stream,
                prepare=self._prepare,
                summarize=None if tell is None else partial(tell, timeline),
                summaries=self._summaries(window.clip),
                seed=self._seed * 1_000_003 + step,
                early=self.settings.early,
                late=self.settings.late,
                draw_gold=self.settings.draw_gold,
            )
            # Rollouts advance together: one that meets a broken picture would end them all.
            for second in range(window.first, window.stop):
                opened.show(second)
        except TimelineError as error:
            self.left_out[error.reason] += 1
            self._plan.reject(window.clip, error)
            return None
        return opened

    def _prepare(self, picture: Any) -> Any:
        if self._served is not None:
            return self._served.prepare(picture)
        return self._renderer.processor.images([picture])

    def _judged(self, window: Window, rollouts: list[Rollout], gold: Rollout | None) -> Group:
        settings = self.settings
        weights = routed(settings.weights, settings.families, rollouts[0].timeline.family)
        right = said_right if self._judge is None else self._judge.right(rollouts[0].timeline)
        return judged(window, rollouts, weights, settings.advantages, brief(right), gold)

    def batches(self, groups: Sequence[Group]) -> list[list[Batch]]:
        """The rows of this rank's sequences by optimizer step, as many as every rank has.
        Collective."""
        settings, train = self.settings, self.train
        parts: list[list[Batch]] = []
        for part in range(settings.updates):
            made, lost = rows_of(
                [g for g in groups if g.part == part and g.advantages is not None],
                self._renderer,
                system=settings.system,
                room=train.row_tokens,
                pack=train.pack,
                share=self._raw.packed,
                aggregate=settings.policy.aggregate,
            )
            self.left_out += lost
            parts.append(made)
        return evened(parts)

    def update(self, step: int) -> dict[str, float]:
        """One step: rollouts, and the optimizer steps on them. The figures of it. Collective."""
        begun = time.monotonic()
        groups, teaching = self.groups(step)
        rolled = time.monotonic() - begun
        figures = self.figures_of(groups)
        figures |= {"grpo/groups_teaching": float(teaching), "grpo/rollout_seconds": rolled}
        parts = self.batches(groups)
        tokens = sum(row["input_ids"].numel() for rows in parts for row in rows)
        figures |= {"grpo/tokens": float(self._sum(tokens)), "grpo/updates": 0.0}
        if teaching and not parts:
            raise UserError(
                f"train.row_tokens={self.train.row_tokens}: no rollout of step {step} fits a row; "
                "raise it, or make windows shorter"
            )
        shown = self._supervised.next() if self._supervised is not None else []
        if parts or shown:
            rate = schedule(self.train, lambda: self.share)(step)
            figures |= self._passes.take(parts, shown, step, rate)
        figures["grpo/train_seconds"] = time.monotonic() - begun - rolled
        return figures

    def figures_of(self, groups: Sequence[Group]) -> dict[str, float]:
        """What all ranks' rollouts came to, beside gold. Collective."""
        return of_groups(gathered([told(group) for group in groups]))

    def collapsed(self, figures: Mapping[str, float]) -> str:
        """Why training should stop: the policy has all but ceased to speak, or speaks all the time,
        for `patience` steps; "" where it has not."""
        gold = figures.get("grpo/gold_rate", 0.0)
        if not gold:
            return ""
        share = figures["grpo/response_rate"] / gold
        low, high = self.settings.collapse
        self._strange = 0 if low <= share <= high else self._strange + 1
        if self._strange < self.settings.patience:
            return ""
        does = "is all but silent" if share < low else "speaks all the time"
        return f"the policy {does}: {share:.2f} of gold's response rate for {self._strange} steps"

    # Models

    def policy_model(self) -> AbstractContextManager[Any]:
        """The policy for generation: itself, or, where ranks hold parts of it, a whole copy."""
        if self._copy is None:
            return generating(self._raw.model)
        synchronize(self._raw.model, self._copy)
        return generating(self._copy)

    @property
    def model(self) -> Any:
        """What is trained."""
        return self._raw.model

    def validating(self) -> AbstractContextManager[None]:
        """The arithmetic that validation is done in."""
        half = arithmetic(self.train.precision) == "bf16"
        return in_bf16(self._raw.model) if half else nullcontext()

    # Steps that are kept

    def resume(self) -> dict[str, Any] | None:
        """Goes on from the newest whole saved step; what was kept with it."""
        if is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            drop_partial(self._folder)
        wait_for_all()
        saved = last_step(self._folder)
        if saved is None:
            return None
        state = read_state(saved)
        self._accelerator.load_state(str(saved))
        self._plan.load_state_dict(state["plan"])
        if self._supervised is not None:
            self._supervised.load_state_dict(state["supervised"])
        self.step, self._strange = state["step"], state["strange"]
        self.share = state["share"]
        if is_first():
            self.left_out = Counter(state["left_out"])
        return state

    def save(self, kept: Mapping[str, Any]) -> None:
        """Keeps this step; older ones go. Collective."""
        path = self._folder / f"checkpoint-{self.step}"
        self._accelerator.save_state(str(path))
        wait_for_all()
        left_out, broken = self._sum_of_left_out(), self._broken_gold()
        gold = self._supervised and {**self._supervised.state_dict(), "left_out": broken}
        if is_first():
            state = {
                "step": self.step,
                "share": self.share,
                "plan": self._plan.state_dict(),
                "supervised": gold,
                "strange": self._strange,
                "left_out": left_out,
                **kept,
            }
            write_state(path, state)
            drop_partial(self._folder)
        wait_for_all()

    # Ranks

    @property
    def rank(self) -> int:
        return int(self._accelerator.process_index)

    @property
    def ranks(self) -> int:
        return int(self._accelerator.num_processes)

    def close(self) -> None:
        """Lets go of the connections."""
        for each in (self._judge, self._served):
            if each is not None:
                each.end()

    def _sum(self, value: int) -> int:
        return int(reduced(self._accelerator, torch.tensor([value]))[0])

    def of_first(self, value: Any) -> Any:
        """The first rank's word. Collective."""
        return gathered([value])[0]

    def left_out_of_all(self) -> dict[str, int]:
        """What could not be trained on, by reason, and draws that were not taken. Collective."""
        passed = {f"passed over: {why}": n for why, n in self._plan.passed_over.items() if n}
        gold = Counter(f"gold stream: {why}" for why in self._broken_gold().values())
        return {**self._sum_of_left_out(), **gold, **passed}

    def _sum_of_left_out(self) -> dict[str, int]:
        return dict(sum(gathered([self.left_out]), Counter()))

    def _broken_gold(self) -> dict[str, str]:
        """Gold streams that any rank met and could not learn from, by name, with the reason."""
        mine = {} if self._supervised is None else self._supervised.left_out
        return {name: why for each in gathered([mine]) for name, why in each.items()}


def _counts(why: Mapping[str, int]) -> str:
    """`3 damaged, 1 missing file`."""
    return ", ".join(f"{n} {reason}" for reason, n in Counter(why).most_common() if n) or "no draw"
