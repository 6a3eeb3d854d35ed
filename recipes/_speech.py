"""What recipe=serve hears and speaks with, as its config says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from data_pipeline.agents.asr import RATE, Asr, voices
from joyvl_train.config import Config, UserError
from serve.speech import (
    Speech,
    SpeechError,
    local_ears,
    local_voice,
    remote_ears,
    remote_voice,
)


@asynccontextmanager
async def speech_of(config: Config) -> AsyncIterator[Speech]:
    """Ears and voice. Raises `UserError` where what they need is not there."""
    speech = config.speech
    client: Any = None
    if speech.url:
        import openai

        key = os.environ.get(speech.key_variable) or "none"
        client = openai.AsyncOpenAI(base_url=speech.url, api_key=key, timeout=30, max_retries=0)
    hear = say = None
    if speech.ears == "whisper":
        asr = Asr(language=speech.language or None)
        asr.load()
        hear = local_ears(asr)
    elif speech.ears == "endpoint":
        hear = remote_ears(client, speech.ears_model)
    if speech.voice == "program":
        try:
            say = local_voice()
        except SpeechError as error:
            raise UserError(
                f"speech.voice=program: {error}; `apt-get install espeak-ng`, or speech=off"
            ) from None
    elif speech.voice == "endpoint":
        say = remote_voice(client, speech.voice_model, speech.voice_name)
    if hear is not None:
        voices(np.zeros(RATE, np.float32))  # what it needs is there, or says so now
    try:
        yield Speech(hear, voices if hear else None, say)
    finally:
        if client is not None:
            await client.close()
