"""Speech that was said by a machine into a real video's sound track."""

from __future__ import annotations

import shutil
import subprocess
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.agents.asr import RATE, Asr, Said, _utterances, sound_of, voices
from joyvl_train.content import token_f1
from joyvl_train.timeline import TimelineError
from tests.data_pipeline.agents.tools import needs

SPOKEN = {2.0: "Alert me if a fire breaks out.", 7.0: "The red car has turned left."}


def video(
    path: Path, sound: np.ndarray | None, rate: int, start: float = 0, gap: float = 0
) -> Path:
    """Grey pictures for as long as the sound, which starts `start` seconds late and stands still
    for `gap` seconds in its middle."""
    seconds = 6 if sound is None else len(sound) / rate + start + gap
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=5)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = None
        if sound is not None:
            track = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for n in range(round(seconds * 5)):
            grey = np.full((48, 64, 3), n % 255, np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(pictures.encode(None))
        if sound is not None and track is not None:
            for at in range(0, len(sound), 1000):
                part = av.AudioFrame.from_ndarray(
                    sound[None, at : at + 1000], format="s16", layout="mono"
                )
                late = start + (gap if at >= len(sound) // 2 else 0)
                part.sample_rate, part.time_base = rate, Fraction(1, rate)
                part.pts = at + round(late * rate)
                container.mux(track.encode(part))
            container.mux(track.encode(None))
    return path


def tone(seconds: float, rate: int) -> np.ndarray:
    return (20_000 * np.sin(np.arange(round(seconds * rate)) * 2760 / rate)).astype(np.int16)


def loud(sound: np.ndarray) -> list[int]:
    """The tenths of a second in which there is sound."""
    whole = np.append(sound, np.zeros(-len(sound) % 1600, np.float32))
    tenths = whole.reshape(-1, 1600)
    return [n for n, part in enumerate(tenths) if np.abs(part).mean() > 0.1]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_sound_lies_at_its_time(tmp_path: Path, rate: int) -> None:
    sound = sound_of(video(tmp_path / "a.mkv", tone(2, rate), rate, start=1.5, gap=1))
    assert sound.dtype == np.float32 and np.abs(sound).max() <= 1
    assert len(sound) == pytest.approx(4.5 * RATE, abs=RATE / 20)
    assert loud(sound) == [*range(15, 25), *range(35, 45)]


def test_videos_without_sound_or_with_too_much(tmp_path: Path) -> None:
    with pytest.raises(TimelineError, match="^no sound track"):
        sound_of(video(tmp_path / "mute.mkv", None, 0))
    long = video(tmp_path / "long.mkv", tone(3, RATE), RATE)
    with pytest.raises(TimelineError, match="^too long: more than 2 s of sound"):
        sound_of(long, most_seconds=2)
    with pytest.raises(TimelineError, match="^too long: sound at 5 s"):
        sound_of(video(tmp_path / "late.mkv", tone(1, RATE), RATE, start=5), most_seconds=2)
    with pytest.raises(TimelineError, match="^missing file"):
        sound_of(tmp_path / "none.mkv")
    (tmp_path / "text.mkv").write_text("no video")
    with pytest.raises(TimelineError, match="^not a video"):
        sound_of(tmp_path / "text.mkv")


class Word:
    def __init__(self, start: float, end: float, word: str, probability: float = 1.0) -> None:
        self.start, self.end, self.word, self.probability = start, end, word, probability


def test_an_utterance_ends_at_a_pause_and_at_a_sentences_end() -> None:
    words = [
        Word(0, 0.4, " It"),
        Word(0.4, 1, " rains.", 0.5),
        Word(1.1, 1.5, " Now"),
        Word(2.5, 3, " then"),
    ]
    assert list(_utterances(words, 0.6)) == [
        Said(0, 1, "It rains.", 0.75),
        Said(1.1, 1.5, "Now", 1.0),
        Said(2.5, 3, "then", 1.0),
    ]
    assert [one.text for one in _utterances(words, 2)] == ["It rains.", "Now then"]
    assert list(_utterances([], 1)) == []


def spoken(folder: Path) -> tuple[np.ndarray, int]:
    """A track of 12 s with the lines of `SPOKEN`."""
    track, rate = np.zeros(0, np.int16), 0
    for at, text in SPOKEN.items():
        path = folder / "line.wav"
        if shutil.which("espeak-ng"):
            command = ["espeak-ng", "-s", "140", "-w", str(path), text]
        else:
            command = ["flite", "-voice", "rms", "-t", text, "-o", str(path)]
        subprocess.run(command, check=True)
        with wave.open(str(path)) as said:
            rate = said.getframerate()
            line = np.frombuffer(said.readframes(said.getnframes()), np.int16)
        if not len(track):
            track = np.zeros(rate * 12, np.int16)
        track[round(at * rate) :][: len(line)] = line
    return track, rate


@pytest.mark.slow
@needs("asr")
@pytest.mark.skipif(
    not (shutil.which("espeak-ng") or shutil.which("flite")), reason="neither espeak-ng nor flite"
)
def test_speech_is_heard_and_written_down(tmp_path: Path) -> None:
    track, rate = spoken(tmp_path)
    sound = sound_of(video(tmp_path / "talk.mkv", track, rate, start=1))
    heard = voices(sound)
    assert [start for start, _ in heard] == pytest.approx([at + 1 for at in SPOKEN], abs=0.4)
    asr = Asr()
    speech = asr(sound)
    assert speech.language == "en" and len(speech.said) == 2
    for said, (at, text) in zip(speech.said, SPOKEN.items(), strict=True):
        assert said.start == pytest.approx(at + 1, abs=0.4)
        assert 1 < said.stop - said.start < 3
        assert token_f1(text, said.text) > 0.7 and said.score > 0.5
    assert asr(sound) == speech
    assert Asr(language="en").key != asr.key


@pytest.mark.slow
@needs("asr")
def test_where_nothing_is_said() -> None:
    asr = Asr()
    noise = np.random.default_rng(0).normal(0, 0.05, RATE * 4).astype(np.float32)
    for sound in (np.zeros(0, np.float32), np.zeros(RATE * 5, np.float32), noise):
        assert voices(sound) == []
        assert asr(sound).said == () and asr(sound).language == ""
