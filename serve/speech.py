"""Speech in and out of a live session: what is heard becomes a query, what is said is spoken.

`Ears` finds utterances in a microphone's sound by a voice detector and has each written down;
`Voice` has responses spoken, one at a time: while one is being spoken the next is shown as text
alone. What writes down and what speaks are functions: local tools, or an endpoint that speaks
OpenAI's audio API. Neither is needed to serve.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import time
import wave
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Samples a second of the sound that is listened to."""

_NO_WAV = (wave.Error, EOFError, RuntimeError)
"""What `wave` raises for bytes that it can't read; the last for a part whose length is false."""

Sound = NDArray[np.float32]
"""[samples] at `RATE`, from -1 to 1."""

Hear = Callable[[Sound], Awaitable[str]]
"""Sound -> what is said in it; "" for nothing."""

Say = Callable[[str], Awaitable[bytes]]
"""Text -> a WAV file in which it is spoken."""

Find = Callable[[Sound], list[tuple[float, float]]]
"""Sound -> where somebody speaks, [start, stop) in seconds."""

_LOOK = 0.3  # seconds of new sound after which voices are looked for again
_SEEN = 2.0  # seconds of the newest sound that are looked at
_BEFORE = 0.5  # seconds that are kept from before a voice is heard


class SpeechError(RuntimeError):
    """Sound could not be written down, or text not be spoken; the message says why."""


class SoundError(ValueError):
    """Bytes that can't be taken for sound."""


@dataclass(slots=True)
class Ears:
    """Hears what is said in sound that comes bit by bit. Used in one event loop; `end` it.

    heard: called with each utterance. pause: seconds without a voice that end one; longest: after
    which it ends anyway; most: seconds of sound that may wait for a slow `hear`, beyond which the
    newest is dropped. failed: called with why an utterance could not be written down.
    """

    hear: Hear
    find: Find
    heard: Callable[[str], None]
    failed: Callable[[str], None] = lambda reason: None
    pause: float = 0.7
    longest: float = 15.0
    most: float = 30.0
    dropped: float = 0.0
    """Seconds of sound that were dropped."""
    _sound: Sound = field(default_factory=lambda: np.zeros(0, np.float32))
    _new: int = 0  # samples that no one has looked at
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _worker: asyncio.Task[None] | None = None
    _ended: bool = False

    def add(self, sound: Sound) -> None:
        """What the microphone took up since the last call."""
        if self._ended:
            return
        if len(self._sound) + len(sound) > self.most * RATE:
            self.dropped += len(sound) / RATE
            return
        self._sound = np.concatenate([self._sound, sound])
        self._new += len(sound)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="ears")
            self._worker.add_done_callback(self._broke)
        if self._new >= _LOOK * RATE:
            self._more.set()

    async def end(self) -> None:
        """What is half said is let go."""
        self._ended = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    def _broke(self, worker: asyncio.Task[None]) -> None:
        """Tells of an error of the detector, after which nothing more is heard."""
        self._ended = True
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self.failed(f"{type(error).__name__}: {error}")

    async def _work(self) -> None:
        speaking = False
        while True:
            await self._more.wait()
            self._more.clear()
            self._new = 0
            length = len(self._sound)
            newest = self._sound[-round(_SEEN * RATE) :]
            spans = await asyncio.to_thread(self.find, newest)
            quiet = len(newest) / RATE - (spans[-1][1] if spans else 0.0)
            if not speaking and spans:
                speaking = True
                begun = length - len(newest) + round((spans[0][0] - _BEFORE) * RATE)
                length -= self._forget(max(begun, 0))
            if speaking and (quiet > self.pause or length > self.longest * RATE):
                speaking = False
                await self._write_down(self._sound[:length])
                self._forget(length)
            elif not speaking:
                self._forget(max(length - round(_SEEN * RATE), 0))

    def _forget(self, samples: int) -> int:
        self._sound = self._sound[samples:]
        return samples

    async def _write_down(self, sound: Sound) -> None:
        try:
            text = await self.hear(sound)
        except SpeechError as error:
            self.failed(str(error))
            return
        if text:
            self.heard(text)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A response as sound: a WAV file that lasts so long."""

    wav: bytes
    seconds: float


@dataclass(slots=True)
class Voice:
    """Speaks one session's responses, the newest `kept` of which can be fetched.

    While one is being spoken, by the clock from when it was ready, `speak` gives nothing, so that
    what the model says is never queued up behind the stream.
    """

    say: Say
    kept: int = 8
    most_chars: int = 500
    now: Callable[[], float] = time.monotonic
    _until: float = 0.0
    _count: int = 0
    _busy: bool = False
    _kept: OrderedDict[int, Spoken] = field(default_factory=OrderedDict)

    async def speak(self, text: str) -> tuple[int, Spoken] | None:
        """The number by which it is fetched, and the sound; None where another is being spoken.
        Raises `SpeechError`."""
        if self._busy or self.now() < self._until:
            return None
        self._busy = True
        try:
            wav = await self.say(text[: self.most_chars])
        finally:
            self._busy = False
        spoken = Spoken(wav, duration(wav))
        self._until = self.now() + spoken.seconds
        self._count += 1
        self._kept[self._count] = spoken
        if len(self._kept) > self.kept:
            self._kept.popitem(last=False)
        return self._count, spoken

    def get(self, number: int) -> Spoken | None:
        """What was spoken under a number; None where it is kept no longer."""
        return self._kept.get(number)


@dataclass(frozen=True, slots=True)
class Speech:
    """What all sessions hear and speak with; None: they don't."""

    hear: Hear | None = None
    find: Find | None = None
    say: Say | None = None


def duration(wav: bytes) -> float:
    """Seconds of a WAV file, by its size: who streams one writes no true length into it. Raises
    `SpeechError`."""
    try:
        with wave.open(io.BytesIO(wav)) as file:
            a_second = file.getframerate() * file.getsampwidth() * file.getnchannels()
    except _NO_WAV as error:
        raise SpeechError(f"no WAV file ({error})") from None
    if not a_second:
        raise SpeechError("no WAV file (0 Hz)")
    return max(len(wav) - 44, 0) / a_second


def read_wav(data: bytes, most_seconds: float) -> Sound:
    """The sound of a WAV file of 16 bits. Raises `SoundError`."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            if width != 2 or not 1 <= channels <= 8 or not 8_000 <= rate <= 96_000:
                raise SoundError(
                    f"{8 * width} bits, {channels} channels, {rate} Hz; a sound is WAV of 16 bits, "
                    "8000 to 96000 Hz"
                )
            raw = file.readframes(min(file.getnframes(), len(data)))
    except _NO_WAV as error:
        raise SoundError(f"no WAV file ({error})") from None
    whole = np.frombuffer(raw[: len(raw) // (2 * channels) * 2 * channels], np.int16)
    sound = whole.reshape(-1, channels).mean(axis=1).astype(np.float32) / 32768
    if len(sound) > most_seconds * rate:
        raise SoundError(f"{len(sound) / rate:.0f} seconds, at most {most_seconds:g}")
    return resampled(sound, rate)


def resampled(sound: Sound, rate: int) -> Sound:
    """Sound of `rate` samples a second at `RATE`."""
    if rate == RATE or not len(sound):  # PyAV makes no frame of nothing
        return sound
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts]) if parts else sound[:0]


def wav_of(sound: Sound) -> bytes:
    """The sound as a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes())
    return out.getvalue()


# What writes down, and what speaks


def local_ears(asr: Any, least_score: float = 0.4) -> Hear:
    """By a recognizer in this process, such as `data_pipeline.agents.asr.Asr`; one utterance at a
    time, and what it is unsure of is nothing."""
    lock = asyncio.Lock()

    async def hear(sound: Sound) -> str:
        # A recognizer misses the first word where no quiet goes before it.
        padded = np.pad(sound, RATE // 2)
        async with lock:
            speech = await asyncio.to_thread(asr, padded)
        return " ".join(said.text for said in speech.said if said.score >= least_score)

    return hear


def local_voice(names: tuple[str, ...] = ("espeak-ng", "flite"), seconds: float = 10.0) -> Say:
    """By a program on this machine, the first that is there. Raises `SpeechError` for none."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SpeechError(f"none of {', '.join(names)} is installed")
    flite = found.endswith("flite")

    async def say(text: str) -> bytes:
        # The text goes in by a pipe: nothing that it holds is an option.
        command = [
            found,
            *(["-o", "/dev/stdout"] if flite else ["-s", "140", "--stdout", "--stdin"]),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(seconds):
                wav, _ = await process.communicate(text.encode())
        except TimeoutError:
            raise SpeechError(f"{found} took more than {seconds:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode or len(wav) <= 44:
            raise SpeechError(f"{found} ended with {process.returncode}, and says nothing")
        return wav

    return say


def remote_ears(client: Any, model: str) -> Hear:
    """By an endpoint that speaks OpenAI's audio API; client: an `openai.AsyncOpenAI`."""
    import openai

    async def hear(sound: Sound) -> str:
        try:
            told = await client.audio.transcriptions.create(
                model=model, file=("speech.wav", wav_of(sound), "audio/wav"), response_format="json"
            )
        except openai.OpenAIError as error:
            raise SpeechError(f"{type(error).__name__}: {error}"[:300]) from None
        return str(told.text).strip()

    return hear


def remote_voice(client: Any, model: str, voice: str, most_bytes: int = 8 * 2**20) -> Say:
    """By an endpoint that speaks OpenAI's audio API."""
    import openai

    async def say(text: str) -> bytes:
        try:
            answer = await client.audio.speech.create(
                model=model, voice=voice, input=text, response_format="wav"
            )
        except openai.OpenAIError as error:
            raise SpeechError(f"{type(error).__name__}: {error}"[:300]) from None
        wav = bytes(answer.content)
        if len(wav) > most_bytes:
            raise SpeechError(f"{len(wav)} bytes of sound, at most {most_bytes}")
        return wav

    return say
