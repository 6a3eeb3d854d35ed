"""The keys of recipe=serve: where it listens, what it serves, what sessions may use."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key


@dataclass
class ServeConfig:
    host: str = _key("127.0.0.1", "address that is listened on; beyond this machine with a token")
    port: int = _key(8700, "port; 0: any free one, which is told", low=0, high=65_535)
    token_variable: str = _key(
        "JOYVL_TOKEN", "environment variable with the token that requests must carry; unset: none"
    )
    check: int = _key(
        0,
        "watch so many seconds of the sample stream, say what came of it, and end; 0: serve",
        low=0,
        high=3600,
    )
    hosts: list[str] = _key([], "names by which clients call this server, beside localhost")
    origins: list[str] = _key([], "origins of pages that may open its WebSocket, beside its own")

    name: str = _key("joyvl", "name of the model, as clients ask for it")
    engine: str = _key(
        "in_process",
        "in_process: the model in this process; vllm: one that is started; url: at serve.urls",
        choices=("in_process", "vllm", "url"),
    )
    urls: list[str] = _key(
        [], "OpenAI-compatible endpoints of the model, its replicas: http://host:8000/v1"
    )
    key_variable: str = _key("OPENAI_API_KEY", "environment variable with the endpoints' key")
    served_model: str = _key("", "the model's name at serve.urls; empty: serve.name")
    vllm_python: str = _key(
        ".venv-vllm/bin/python", "python of the environment in which vLLM is installed"
    )
    vllm_port: int = _key(8701, "port of the vLLM that is started", low=1, high=65_535)
    vllm_options: list[str] = _key([], "further options of it, as on its command line")
    uuids: bool = _key(
        True, "pictures that vLLM has seen go by their names; false: they are sent every second"
    )
    step_timeout: float = _key(5.0, "seconds that a second may take the model", low=0.1, high=600)

    sample: bool = _key(True, "clients may watch a rendered sample stream")
    videos: str = _key("", "folder of the video files that clients may watch; empty: none")
    rtsp: list[str] = _key(
        [], "addresses that clients may watch; one that ends with / stands for all below it"
    )
    webrtc: bool = _key(True, "clients may send a camera or screen over WebRTC")
    every: int = _key(1, "seconds from one step to the next", low=1, high=60)
    picture_side: int = _key(
        480, "longest side at which pictures are kept for viewers", low=16, high=4096
    )
    backlog: int = _key(2, "seconds that wait for a slow model; older ones drop", low=1, high=100)

    modes: dict[str, float] = _key(
        {"default": 0.0, "talkative": -2.0, "aloof": 2.0},
        "response modes: what each adds to the logit of silence, beside eval.silence_bias",
        low=-50,
        high=50,
    )
    memory: str = _key(
        "seen",
        "what tells of the past: what was seen and said; said alone; seen, and searched for good",
        choices=("seen", "said", "searched"),
    )
    modules: list[str] = _key([], "what looks on and adds a line to a second: ocr, detector")
    mute: list[str] = _key(
        [], "regular expressions of what the model may not say unless it was asked"
    )
    background: list[str] = _key(
        ["calculator", "search"],
        "what solves delegated tasks, tried in this order until one has an answer: calculator, "
        "search, ocr, detector, model (at agents.url), command (serve.command), client (whoever "
        "opened the session; last); empty: nothing does",
    )
    command: list[str] = _key([], "a command for delegated tasks, with its arguments")
    task_seconds: float = _key(120.0, "seconds after which a task has failed", low=0.1, high=86_400)
    sessions: int = _key(16, "sessions at once", low=1, high=10_000)
    idle: float = _key(120.0, "seconds after which a session without anyone ends", low=1, high=1e6)
    longest: float = _key(86_400.0, "seconds after which any session ends", low=1, high=1e8)
    kept: float = _key(600.0, "seconds for which artifacts of ended sessions stay", low=0, high=1e7)


@dataclass
class SpeechConfig:
    ears: str = _key(
        "",
        "what writes down what users say: whisper (of `python -m data_pipeline.assets tools`), the "
        "endpoint at speech.url, or nothing",
        choices=("", "whisper", "endpoint"),
    )
    voice: str = _key(
        "",
        "what speaks responses: a program (espeak-ng or flite), the endpoint at speech.url, or "
        "nothing",
        choices=("", "program", "endpoint"),
    )
    language: str = _key("", "code of the language that is spoken; empty: it is heard")
    url: str = _key("", "endpoint of OpenAI's audio API, such as http://host:8880/v1")
    key_variable: str = _key("OPENAI_API_KEY", "environment variable with its key")
    ears_model: str = _key("whisper-1", "its model that writes down")
    voice_model: str = _key("tts-1", "its model that speaks")
    voice_name: str = _key("alloy", "its voice")
