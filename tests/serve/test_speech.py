"""Speech in and out: utterances are found, written down and asked; responses are spoken."""

from __future__ import annotations

import asyncio
import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from aiohttp import web
from aiortc import AudioStreamTrack
from av import AudioFrame

from data_pipeline.agents.asr import Asr, voices
from joyvl_train.actions import Response
from joyvl_train.content import token_f1
from serve.client import Client, ServerError
from serve.speech import (
    RATE,
    Ears,
    Sound,
    SoundError,
    Speech,
    SpeechError,
    Voice,
    duration,
    local_ears,
    local_voice,
    read_wav,
    remote_ears,
    remote_voice,
    wav_of,
)
from serve.webrtc import WebRtc
from tests.data_pipeline.agents.tools import needs
from tests.serve.lived import Scripted
from tests.serve.running import jpeg, running, url
from tests.serve.test_webrtc import connected

speaks = pytest.mark.skipif(
    not (shutil.which("espeak-ng") or shutil.which("flite")), reason="neither espeak-ng nor flite"
)


def loud(sound: Sound) -> list[tuple[float, float]]:
    """Where a sound is loud, by tenths of a second: stands for the voice detector."""
    tenths = np.abs(sound[: len(sound) // 1600 * 1600]).reshape(-1, 1600).mean(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], tenths.astype(int), [0]])))
    return [(a / 10, b / 10) for a, b in edges.reshape(-1, 2)]


def tone(seconds: float) -> Sound:
    return (0.5 * np.sin(np.arange(round(seconds * RATE)) / 8)).astype(np.float32)


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), np.float32)


async def fed(ears: Ears, sound: Sound) -> None:
    """Gives the sound in pieces of a fiftieth of a second, as a microphone does."""
    for at in range(0, len(sound), RATE // 50):
        ears.add(sound[at : at + RATE // 50])
        if at % (RATE // 5) == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


def test_utterances_are_found_and_written_down_whole() -> None:
    async def main() -> None:
        lengths: list[float] = []
        heard: list[str] = []

        async def hear(sound: Sound) -> str:
            lengths.append(len(sound) / RATE)
            return "" if len(lengths) == 2 else f"line {len(lengths)}"

        ears = Ears(hear, loud, heard.append)
        await fed(ears, silence(5))
        assert len(ears._sound) <= 2.5 * RATE  # silence is not kept
        for seconds in (1.5, 3.0, 0.8):
            await fed(ears, np.concatenate([tone(seconds), silence(1.5)]))
        await ears.end()
        assert heard == ["line 1", "line 3"]  # where nothing was said there is nothing to ask
        for length, spoken in zip(lengths, (1.5, 3.0, 0.8), strict=True):
            assert spoken <= length <= spoken + 2

    asyncio.run(main())


def test_one_who_never_stops_is_cut_and_a_slow_recognizer_loses_the_newest() -> None:
    async def main() -> None:
        lengths: list[float] = []

        async def hear(sound: Sound) -> str:
            lengths.append(len(sound) / RATE)
            return "on and on"

        ears = Ears(hear, loud, lambda text: None, longest=4)
        await fed(ears, tone(14))
        await ears.end()
        assert len(lengths) >= 2 and all(4 <= length < 6 for length in lengths)

        gate = asyncio.Event()

        async def slow(sound: Sound) -> str:
            await gate.wait()
            return "at last"

        heard: list[str] = []
        ears = Ears(slow, loud, heard.append, most=6)
        await fed(ears, np.concatenate([tone(1), silence(10)]))
        assert ears.dropped > 3 and len(ears._sound) <= 6 * RATE
        gate.set()
        await asyncio.sleep(0.05)
        await ears.end()
        assert heard == ["at last"]

    asyncio.run(main())


def test_what_can_not_be_written_down_is_told_and_the_next_is_heard() -> None:
    async def main() -> None:
        failed: list[str] = []
        heard: list[str] = []

        async def hear(sound: Sound) -> str:
            if not failed:
                raise SpeechError("out of memory")
            return "here again"

        ears = Ears(hear, loud, heard.append, failed.append)
        for _ in "ab":
            await fed(ears, np.concatenate([tone(1), silence(1.5)]))
        await ears.end()
        assert failed == ["out of memory"] and heard == ["here again"]

    asyncio.run(main())


def test_a_detector_that_breaks_is_told_and_nothing_piles_up() -> None:
    async def main() -> None:
        async def hear(sound: Sound) -> str:
            raise AssertionError("nothing is found")

        def find(sound: Sound) -> list[tuple[float, float]]:
            raise ValueError("no such model")

        failed: list[str] = []
        ears = Ears(hear, find, failed.append, failed.append)
        await fed(ears, tone(1))
        held = len(ears._sound)
        await fed(ears, tone(3))
        assert failed == ["ValueError: no such model"] and len(ears._sound) == held
        await ears.end()

    asyncio.run(main())


def test_while_one_is_spoken_the_next_is_text_alone() -> None:
    async def main() -> None:
        clock = [0.0]
        gate = asyncio.Event()

        async def say(text: str) -> bytes:
            if text == "slow":
                await gate.wait()
            return wav_of(silence(2.0))

        voice = Voice(say, kept=2, now=lambda: clock[0])
        first = await voice.speak("one")
        assert first is not None and first[0] == 1 and first[1].seconds == pytest.approx(2)
        clock[0] = 1.9
        assert await voice.speak("two") is None
        clock[0] = 2.1
        slow = asyncio.create_task(voice.speak("slow"))
        await asyncio.sleep(0)
        assert await voice.speak("meanwhile") is None  # it is being made
        gate.set()
        assert (await slow or (0,))[0] == 2
        clock[0] = 9
        await voice.speak("three")
        assert voice.get(1) is None and voice.get(3) is not None  # the newest are kept

    asyncio.run(main())


def test_a_voice_that_fails_may_speak_again() -> None:
    async def main() -> None:
        async def say(text: str) -> bytes:
            if text == "bad":
                raise SpeechError("no sound card")
            return b"no wav" if text == "odd" else wav_of(silence(1))

        voice = Voice(say)
        for text in ("bad", "odd"):
            with pytest.raises(SpeechError):
                await voice.speak(text)
        assert await voice.speak("good") is not None

    asyncio.run(main())


def wav(rate: int, channels: int = 1, width: int = 2, frames: int = 4800) -> bytes:
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(b"\x10\x20" * (frames * channels * width // 2))
    return out.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_at_one_rate(rate: int, channels: int) -> None:
    sound = read_wav(wav(rate, channels, frames=rate), 5)
    assert len(sound) == pytest.approx(RATE, rel=0.01) and sound.dtype == np.float32
    assert np.abs(sound[200:-200] - 0x2010 / 32768).max() < 0.01


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no WAV file"),
        (b"RIFF\xff\xff\xff\xffWAVE", "no WAV file"),
        (wav(16_000)[:30], "no WAV file"),
        (b"ID3" + bytes(500), "no WAV file"),
        (b"RIFF\x24\0\0\0WAVEjunk\xff\xff\0\0" + bytes(24), "no WAV file"),
        (wav(16_000, width=1), "16 bits"),
        (wav(200_000), "8000 to 96000 Hz"),
        (wav(16_000, channels=9), "9 channels"),
        (wav(16_000, frames=16_000 * 6), "6 seconds, at most 5"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(SoundError, match=why):
        read_wav(data, 5)
    if why == "no WAV file":
        with pytest.raises(SpeechError):
            duration(data)


def test_a_sound_of_nothing_is_nothing() -> None:
    for rate in (16_000, 8_000, 48_000):
        assert len(read_wav(wav(rate, frames=0), 5)) == 0
    still = bytearray(wav(16_000))
    still[24:28] = bytes(4)  # 0 samples a second
    with pytest.raises(SpeechError, match="0 Hz"):
        duration(bytes(still))


def test_a_length_that_is_not_true_costs_no_memory() -> None:
    data = bytearray(wav(16_000))
    data[40:44] = (2**31 - 1).to_bytes(4, "little")  # as who streams a WAV file writes it
    assert len(read_wav(bytes(data), 5)) == 4800
    assert duration(bytes(data)) == pytest.approx(0.3)


@asynccontextmanager
async def endpoint(status: int = 200) -> AsyncIterator[openai.AsyncOpenAI]:
    """A server of OpenAI's audio API that knows one line."""

    async def write_down(request: web.Request) -> web.Response:
        form = await request.post()
        assert form["model"] == "ears" and duration(form["file"].file.read()) > 0  # type: ignore[union-attr]
        return web.json_response({"text": " Tell me more. "}, status=status)

    async def speak(request: web.Request) -> web.Response:
        asked = await request.json()
        assert (asked["model"], asked["voice"], asked["input"]) == ("mouth", "alto", "A fire.")
        return web.Response(body=wav_of(silence(1)), status=status)

    app = web.Application()
    app.router.add_post("/v1/audio/transcriptions", write_down)
    app.router.add_post("/v1/audio/speech", speak)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def test_an_endpoint_hears_and_speaks() -> None:
    async def main() -> None:
        async with endpoint() as client:
            assert await remote_ears(client, "ears")(tone(1)) == "Tell me more."
            said = await remote_voice(client, "mouth", "alto")("A fire.")
            assert duration(said) == pytest.approx(1)
            with pytest.raises(SpeechError, match="at most 10"):
                await remote_voice(client, "mouth", "alto", 10)("A fire.")
        async with endpoint(500) as client:
            with pytest.raises(SpeechError, match="500"):
                await remote_ears(client, "ears")(tone(1))
            with pytest.raises(SpeechError, match="500"):
                await remote_voice(client, "mouth", "alto")("A fire.")

    asyncio.run(main())


def test_speech_over_the_api(tmp_path: Path) -> None:
    async def hear(sound: Sound) -> str:
        if len(sound) < RATE / 2:
            raise SpeechError("too short")
        return "Tell me when it burns."

    async def say(text: str) -> bytes:
        assert text == "It burns."
        return wav_of(silence(3))

    async def main() -> None:
        model = Scripted({t: Response("It burns.") for t in (1, 2)})
        made = running(tmp_path, model, speech=Speech(hear, loud, say))
        async with made as server, Client(url(server)) as client:
            assert (await client.call("GET", "/v1/models"))["speech"] == {
                "hears": True,
                "speaks": True,
            }
            session = await client.open({"kind": "push"})
            kind = {"Content-Type": "audio/wav"}
            path = f"{session.place}/speech"
            told = await client.call("POST", path, data=wav_of(tone(1)), headers=kind)
            assert told["text"] == "Tell me when it burns."
            for second in range(4):
                await session.push(jpeg(), second)
                await asyncio.sleep(0.05)
            events = await session.after(0)
            assert [e["text"] for e in events if e["kind"] in ("heard", "query")] == (
                ["Tell me when it burns."] * 2
            )
            assert ("Tell me when it burns.",) in model.prompts
            # The second response comes while the first is spoken.
            (spoken,) = [e for e in events if e["kind"] == "speech"]
            assert (spoken["second"], spoken["number"], spoken["seconds"]) == (1, 1, 3)
            assert await client.bytes(f"{path}/1") == wav_of(silence(3))
            for place, data, headers, status in (
                (path, wav_of(tone(0.1)), kind, 502),
                (path, b"RIFFxxxx", kind, 400),
                (path, bytes(5 * 2**20), kind, 413),
                (path, wav_of(tone(1)), {"Content-Type": "text/plain"}, 415),
            ):
                with pytest.raises(ServerError) as refused:
                    await client.call("POST", place, data=data, headers=headers)
                assert refused.value.status == status
            with pytest.raises(ServerError, match="Not Found"):
                await client.bytes(f"{path}/9")
            await session.close()
        async with running(tmp_path) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            path = f"{session.place}/speech"
            with pytest.raises(ServerError, match="hears nothing"):
                await client.call("POST", path, data=wav_of(tone(1)), headers=kind)

    asyncio.run(main())


class Microphone(AudioStreamTrack):
    """Says a sound of 48 kHz once, and is silent from then on."""

    def __init__(self, sound: np.ndarray) -> None:
        super().__init__()
        self._sound, self._at = sound, 0

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(0.02)
        part = self._sound[self._at * 960 : (self._at + 1) * 960]
        part = np.pad(part, (0, 960 - len(part))).astype(np.int16)
        frame = AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 960 * self._at, Fraction(1, 48_000)
        self._at += 1
        return frame


async def first(session: Any, kind: str, seconds: float = 30) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            for event in await session.after(0):
                if event["kind"] == kind:
                    return dict(event)
            await asyncio.sleep(0.1)


def test_a_microphone_over_webrtc_is_heard(tmp_path: Path) -> None:
    lengths: list[float] = []

    async def hear(sound: Sound) -> str:
        lengths.append(len(sound) / RATE)
        return "Hello there."

    async def main() -> None:
        webrtc = WebRtc()
        made = running(tmp_path, Scripted(), speech=Speech(hear, loud))
        async with made as server, Client(url(server)) as client:
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            beep = (16_000 * np.sin(np.arange(48_000 * 2) / 24)).astype(np.int16)
            quiet = np.zeros(48_000, np.int16)
            peer = await connected(session, Microphone(np.concatenate([quiet, beep])))
            assert (await first(session, "heard"))["text"] == "Hello there."
            assert (await first(session, "query"))["text"] == "Hello there."
            await session.close()
            await peer.close()
        await webrtc.close()
        assert lengths and 1.5 < lengths[0] < 5

    asyncio.run(main())


@pytest.mark.slow
@speaks
@needs("asr")
def test_from_a_spoken_wish_to_a_spoken_alert(tmp_path: Path) -> None:
    """Said aloud over WebRTC, heard by Whisper, answered by espeak-ng, and understood again."""
    wish, alert = "Alert me if a fire breaks out.", "A fire broke out."
    asr = Asr(language="en")

    async def main() -> None:
        say = local_voice()
        with wave.open(BytesIO(await say(wish))) as file:
            rate = file.getframerate()
            raw = np.frombuffer(file.readframes(10**7), np.int16).astype(np.float32)
        places = np.arange(len(raw) * 48_000 // rate) * rate / 48_000
        spoken = np.interp(places, np.arange(len(raw)), raw).astype(np.int16)
        speech = Speech(local_ears(asr), voices, say)
        model = Scripted({t: Response(alert) for t in range(12, 60)})
        webrtc = WebRtc()
        async with running(tmp_path, model, speech=speech) as server, Client(url(server)) as client:
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            quiet = np.zeros(48_000, np.int16)
            peer = await connected(session, Microphone(np.concatenate([quiet, spoken, quiet])))
            heard = (await first(session, "heard"))["text"]
            assert token_f1(wish, heard) > 0.7, heard
            told = await first(session, "speech", 60)
            wav = await client.bytes(f"{session.place}/speech/{told['number']}")
            await session.close()
            await peer.close()
        await webrtc.close()
        back = await local_ears(asr)(read_wav(wav, 20))
        assert token_f1(alert, back) > 0.7, back
        assert any(heard in prompt for prompt in model.prompts)

    asyncio.run(main())
