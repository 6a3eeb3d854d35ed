"""The sides of a corpus on disk: what is trained on, validated on, and scored at the end.

A hash of what a sample shows (`records.footage`) decides, and nothing else: neither its place among
the others nor how many there are. So two records of one video are on one side, turn-based samples
among them, and what is added, taken out or moved never sends another one across. The footage of a
record that is for evaluation alone is always of the test side.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterator
from typing import Literal

from joyvl_train.corpus import Corpus, Labels, Sample, Survey
from joyvl_train.frames import Frames
from joyvl_train.published import EVALUATION_ONLY
from joyvl_train.records import Rejects, StreamLabels, TurnSample
from joyvl_train.timeline import Timeline, TimelineError

SideName = Literal["train", "validation", "test"]

LEFT_OUT = "family left out"

VALIDATION = 0.25
"""Of the clips that are held out, the share that is validated on and never scored at the end."""


def side_of(footage: int, share: float) -> SideName:
    """The side of footage of this number (`records.footage_number`), of which `share` is held out.

    A greater share sends footage from training to the others, and none between these two.
    """
    if (footage >> 32) >= share * 2**32:
        return "train"
    return "validation" if (footage & 0xFFFFFFFF) < VALIDATION * 2**32 else "test"


class Side(Corpus):
    """The samples of one side of `corpus`; what it leaves out for good is counted in `rejects`.

    These are the side's own records that can't be used; those whose footage isn't known count as
    training's, and the rejects of "test" as all there are. Turn-based samples are for training
    alone: one whose footage is held out is left out of it (reason "footage held out"), as is one
    that is for evaluation ("evaluation only").

    held: how many samples of the corpus are on the other sides than training's. Those are held in
    the order of the hash, so that the first few are a fair choice that hardly changes when clips
    are added.
    without: families whose streams training is to do without (reason "family left out"); the other
    sides have them all the same. met: those of them that there are, as far as records were read.
    """

    def __init__(
        self,
        corpus: Corpus,
        side: SideName,
        share: float,
        rejects: Rejects,
        without: Collection[str] = (),
    ) -> None:
        survey = corpus.survey()
        self._corpus = corpus
        self._numbers = array("q")
        self._without = frozenset(without) if side == "train" else frozenset()
        self.met: set[str] = set()
        self.held = 0
        reserved = survey.reserved
        for unread in survey.unread:
            own: SideName = "train"
            if unread.footage is not None:
                own = "test" if unread.footage in reserved else side_of(unread.footage, share)
            if side in ("test", own):
                rejects.add(unread.where, unread.reason, unread.detail)
        for number, footage in enumerate(survey.footage):
            if number in survey.broken:
                continue
            found = "test" if footage in reserved else side_of(footage, share)
            self.held += found != "train"
            if found == side and (side == "train" or number not in survey.questions):
                self._numbers.append(number)
            elif side == "train" and number in survey.questions:
                where, reason = corpus.where(number), "footage held out"
                detail = f"what it shows is held out of training (data.held_out={share:g})"
                if number in survey.evaluation:
                    reason, detail = EVALUATION_ONLY, "it is never trained on"
                rejects.add(where, reason, f"{where}: {detail}")
        if side != "train":
            self._numbers = array("q", sorted(self._numbers, key=lambda n: survey.footage[n]))
        digest = hashlib.blake2b(self._numbers.tobytes(), digest_size=20).hexdigest()
        super().__init__(rejects, corpus.name, f"{corpus.digest}/{digest}")
        if side != "train":
            self.apart = f" on the side of {side} (data.held_out={share:g})"
        elif self.held:
            self.apart = f", {self.held} of {len(corpus)} held out (data.held_out={share:g})"

    def __len__(self) -> int:
        return len(self._numbers)

    def _load(self, number: int) -> Sample:
        sample = self._corpus._load(self._numbers[number])
        self._check_family(sample if isinstance(sample, TurnSample) else sample[0])
        return sample

    def _told(self, number: int) -> Labels:
        labels = self._corpus._told(self._numbers[number])
        self._check_family(labels)
        return labels

    def _check_family(self, labels: Labels) -> None:
        if isinstance(labels, StreamLabels) and labels.timeline.family in self._without:
            family = labels.timeline.family
            self.met.add(family)
            raise TimelineError(LEFT_OUT, f"{family}: training does without (data.mix)")

    def where(self, number: int) -> str:
        return self._corpus.where(self._numbers[number])

    def survey(self) -> Survey:
        whole = self._corpus.survey()
        footage = array("Q", [whole.footage[number] for number in self._numbers])
        questions = {n for n, number in enumerate(self._numbers) if number in whole.questions}
        evaluation = {n for n, number in enumerate(self._numbers) if number in whole.evaluation}
        return Survey(footage, questions, evaluation)

    def streams(self) -> Iterator[tuple[Timeline, Frames]]:
        """The time-aligned clips of this side, each looked at whole: a picture that is broken
        rejects its clip, before anything is measured on it."""
        for number in range(len(self)):
            try:
                sample = self[number]
                if isinstance(sample, TurnSample):
                    continue
                labels, frames = sample
                for second in range(frames.seconds):
                    frames.frames(second)
            except TimelineError as error:
                self.rejects.add(self.where(number), error.reason, error.detail)
                continue
            yield labels.timeline, frames
