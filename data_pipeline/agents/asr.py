"""What is said in a video's sound track, and when.

Whisper base (many languages) behind the Silero voice detector, both run by faster-whisper. Needs
the `tools` extra and the model that `python -m data_pipeline.assets tools` fetches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from data_pipeline.agents import tool_files
from joyvl_train.timeline import TimelineError
from joyvl_train.video import opened, probe

RATE = 16_000
"""Samples a second of the sound that is listened to."""

Sound = NDArray[np.float32]

_TOOL = "asr"
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
_GAP = RATE // 10  # samples by which a sound track may wander off its clock before it is set right


@dataclass(frozen=True, slots=True)
class Said:
    """Words that were said in one breath, [start, stop) in seconds of the clip. `score` is the mean
    probability of the words: low where there may have been none."""

    start: float
    stop: float
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Speech:
    """All that was said. `language` is a code such as "en"; empty where nothing was said."""

    language: str
    said: tuple[Said, ...]


class Asr:
    """Writes down what is said.

    language: its code where it is known, else it is heard from the first half minute; pause:
    seconds of silence that end an utterance, as the end of a sentence does; device: "cpu" or
    "cuda"; threads: of one call.
    """

    def __init__(
        self,
        *,
        language: str | None = None,
        pause: float = 0.6,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self.language, self.pause, self.device, self.threads = language, pause, device, threads
        self.key = tool_files.key(_TOOL, language, pause, self._number_type)

    def load(self) -> None:
        """Reads the model now. Raises `UserError` where something is missing."""
        _ = self._model

    @property
    def _number_type(self) -> str:
        return "int8" if self.device == "cpu" else "float16"

    def __call__(self, sound: Sound) -> Speech:
        """What is said in `sound` (`sound_of`). The same sound gives the same words: nothing is
        drawn at random, where an uncertain stretch would be tried again otherwise."""
        segments, told = self._model.transcribe(
            sound,
            language=self.language,
            temperature=0.0,
            condition_on_previous_text=False,  # else one mishearing may run through all the rest
            vad_filter=True,
            vad_parameters={"min_silence_duration_ms": 500},
            word_timestamps=True,
        )
        breaths = _utterances((word for one in segments for word in one.words), self.pause)
        heard = voices(sound, pause=0.2)
        said = tuple(_while_heard(one, heard) for one in breaths)
        return Speech(told.language if said else "", said)

    @cached_property
    def _model(self) -> Any:
        library = tool_files.module("faster_whisper", _TOOL)
        return library.WhisperModel(
            str(tool_files.files(_TOOL)),
            device=self.device,
            compute_type=self._number_type,
            cpu_threads=self.threads,
            local_files_only=True,
        )


def voices(sound: Sound, pause: float = 0.6) -> list[tuple[float, float]]:
    """Where somebody speaks, [start, stop) in seconds: cheap, and needs no fetched model."""
    vad = tool_files.module("faster_whisper.vad", _TOOL)
    options = vad.VadOptions(min_silence_duration_ms=round(pause * 1000), speech_pad_ms=30)
    found = vad.get_speech_timestamps(sound, options)
    return [(one["start"] / RATE, one["end"] / RATE) for one in found]


def sound_of(video: str | Path, most_seconds: float = 4 * 3600) -> Sound:
    """The first sound track of a video, [samples] at `RATE` from the clip's time 0; where it starts
    late or has gaps there is silence.

    `TimelineError` "no sound track", "damaged sound", "too long", or what `probe` refuses.
    """
    found = probe(video)
    sound = _Sound(round(most_seconds * RATE))
    with opened(found.path) as container:
        if not container.streams.audio:
            raise TimelineError("no sound track", str(video))
        try:
            for frame in container.decode(container.streams.audio[0]):
                sound.add(frame, found.zero)
            sound.end_run()
        except av.FFmpegError as error:
            raise TimelineError("damaged sound", f"{video}: {error.strerror}") from None
    return sound.whole()


class _Sound:
    """Sound as it is decoded, each stretch without gaps resampled on its own."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._parts: list[Sound] = []
        self._length = 0
        self._resampler: Any = None
        self._next = 0  # where the next frame should begin if there is no gap
        self._skip = 0  # samples still to be left out, from before time 0 or there already

    def add(self, frame: Any, zero: Fraction) -> None:
        at = self._next
        if frame.pts is not None:
            at = round((frame.pts * Fraction(frame.time_base) - zero) * RATE)
        if self._resampler is None or abs(at - self._next) > _GAP:
            self.end_run()
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            self._silence_until(at)
            self._skip = max(0, self._length - at)
        self._next = at + round(Fraction(frame.samples * RATE, frame.sample_rate))
        for part in self._resampler.resample(frame):
            self._put(part)

    def end_run(self) -> None:
        if self._resampler is not None:
            for part in self._resampler.resample(None):
                self._put(part)
            self._resampler = None

    def whole(self) -> Sound:
        return np.concatenate([*self._parts, np.zeros(0, np.float32)])

    def _put(self, frame: Any) -> None:
        samples = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
        skipped = samples[self._skip :]  # before time 0, or there already
        self._skip = max(0, self._skip - len(samples))
        self._append(skipped)

    def _silence_until(self, at: int) -> None:
        if at > self._length:
            if at > self.most:
                raise TimelineError("too long", f"sound at {at / RATE:.0f} s")
            self._append(np.zeros(at - self._length, np.float32))

    def _append(self, samples: Sound) -> None:
        self._length += len(samples)
        if self._length > self.most:
            raise TimelineError("too long", f"more than {self.most / RATE:.0f} s of sound")
        self._parts.append(samples)


def _utterances(words: Iterable[Any], pause: float) -> Iterator[Said]:
    """Words with times, put together between pauses and ends of sentences."""
    breath: list[Any] = []
    for word in words:
        if breath and (
            word.start - breath[-1].end >= pause
            or breath[-1].word.rstrip().endswith(_SENTENCE_ENDS)
        ):
            yield _said(breath)
            breath = []
        breath.append(word)
    if breath:
        yield _said(breath)


def _while_heard(said: Said, heard: list[tuple[float, float]]) -> Said:
    """Without the silence that Whisper counts in with the first and the last word."""
    during = [(start, stop) for start, stop in heard if start < said.stop and stop > said.start]
    if not during:
        return said
    return replace(said, start=max(said.start, during[0][0]), stop=min(said.stop, during[-1][1]))


def _said(words: list[Any]) -> Said:
    text = "".join(word.word for word in words).strip()
    score = sum(word.probability for word in words) / len(words)
    return Said(float(words[0].start), float(words[-1].end), text, float(score))
