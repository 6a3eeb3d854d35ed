"""The API of `serve/server.py` as an OpenAPI document; a test holds it against the routes."""

from __future__ import annotations

from functools import cache
from typing import Any

from joyvl_train import __version__

EVENTS = {
    "source": "the source's state: live, lost or ended, with detail",
    "query": "what the user said, which enters with the next second: text, by (source, where the "
    "source itself has the user say it)",
    "step": "a second was answered: second, action (silence, response, delegation), text, latency",
    "task": "a delegated task: state (started, ready, error), task, text, artifact, error",
    "asked": "a task that the client is to solve, where the server is set so: task, note, question",
    "heard": "what was heard of what the user said aloud; a query of it follows: text",
    "speech": "a response is spoken: second, number, seconds; or could not be: error",
    "summary": "a text for memory: start, stop, text",
    "memory": "something befell memory: what, second, detail",
    "config": "a setting was changed: mode",
    "reset": "all was forgotten",
    "dropped": "seconds that the model was too slow for",
    "engine": "the model gave no answer in a second, which stands as silence: second, error",
    "late": "what it said too late: second, text",
    "malformed": "it said what is no action; the second stands as silence",
    "filtered": "what was not let through: second, text",
    "module": "a module failed at a second",
    "refused": "something was not taken: what, reason",
    "gap": "events that are kept no longer: missed",
    "closed": "the session ended: reason",
}
"""Kinds of events, and what each tells beside seq, time and kind."""

_TEXT = {"type": "string"}
_SESSION = {"name": "session", "in": "path", "required": True, "schema": _TEXT}
_NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
_AFTER = {
    "name": "after",
    "in": "query",
    "description": "the last event that the client has seen",
    "schema": {"type": "integer", "minimum": 0},
}
_SOURCE = {
    "type": "object",
    "required": ["kind"],
    "additionalProperties": False,
    "properties": {
        "kind": {"enum": ["push", "webrtc", "sample", "file", "rtsp"]},
        "name": {"type": "string", "description": "of a file, in the configured folder"},
        "url": {"type": "string", "description": "of rtsp, one that is allowed"},
        "paced": {"type": "boolean", "description": "of a file: false reads as fast as it can"},
    },
}


def _body(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema}}}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }


def _operation(summary: str, *, answer: str = "200", **more: Any) -> dict[str, Any]:
    wrong = {"description": "what is wrong, in `error`"}
    return {
        "summary": summary,
        "responses": {answer: {"description": summary}, "4XX": wrong},
        **more,
    }


@cache
def described() -> dict[str, Any]:
    """The document."""
    one = "/v1/sessions/{session}"
    asked = _object(
        source=_SOURCE,
        model=_TEXT,
        mode=_TEXT,
        opening={"type": "string", "description": "what memory holds at the start"},
        pins={"type": "array", "items": _TEXT, "description": "instructions that stand"},
        seed={"type": "integer", "minimum": 0},
    )
    paths = {
        "/": {"get": _operation("the page")},
        "/health": {"get": _operation("whether the server takes sessions")},
        "/metrics": {"get": _operation("measures, as Prometheus reads them")},
        "/openapi.json": {"get": _operation("this document")},
        "/v1/models": {"get": _operation("models with their modes, and sources that may be asked")},
        "/v1/sessions": {
            "get": _operation("the sessions that live"),
            "post": _operation("opens a session", answer="201", requestBody=_body(asked)),
        },
        one: {
            "parameters": [_SESSION],
            "get": _operation("the session's state: mode, memory, latencies, counts"),
            "patch": _operation("changes its mode", requestBody=_body(_object("mode", mode=_TEXT))),
            "delete": _operation("ends it, and deletes what is kept of it"),
        },
        f"{one}/reset": {"parameters": [_SESSION], "post": _operation("forgets all")},
        f"{one}/queries": {
            "parameters": [_SESSION],
            "post": _operation(
                "says something; it enters with the next second",
                answer="202",
                requestBody=_body(_object("text", text=_TEXT)),
            ),
        },
        f"{one}/frames": {
            "parameters": [
                _SESSION,
                {
                    "name": "second",
                    "in": "query",
                    "description": "the picture is that of this whole second; else it is of now",
                    "schema": {"type": "integer", "minimum": 0},
                },
            ],
            "post": _operation(
                "pushes a picture to a session of kind push",
                answer="202",
                requestBody=_body({"type": "string", "format": "binary"}, "image/jpeg"),
            ),
        },
        f"{one}/frame": {"parameters": [_SESSION], "get": _operation("its newest picture, a JPEG")},
        f"{one}/events": {
            "parameters": [
                _SESSION,
                _AFTER,
                {
                    "name": "wait",
                    "in": "query",
                    "description": "seconds to wait for one where there is none",
                    "schema": {"type": "integer", "minimum": 0, "maximum": 25},
                },
            ],
            "get": _operation("the events after one"),
        },
        f"{one}/socket": {
            "parameters": [_SESSION, _AFTER],
            "get": _operation(
                "a WebSocket (protocol joyvl): events out; in: query, config, reset, sync, cancel "
                "as JSON with their kind, pictures as binary messages; closed with code 4000 once "
                "all was told of a session that has ended",
                answer="101",
            ),
        },
        f"{one}/offer": {
            "parameters": [_SESSION],
            "post": _operation(
                "answers a WebRTC offer for a session of kind webrtc",
                requestBody=_body(_object("sdp", "type", sdp=_TEXT, type={"enum": ["offer"]})),
            ),
        },
        f"{one}/speech": {
            "parameters": [_SESSION],
            "post": _operation(
                "something said aloud, which is written down and asked",
                answer="202",
                requestBody=_body({"type": "string", "format": "binary"}, "audio/wav"),
            ),
        },
        f"{one}/speech/{{number}}": {
            "parameters": [_SESSION, _NUMBER],
            "get": _operation("a response as a WAV file, the newest few"),
        },
        f"{one}/artifacts/{{number}}": {
            "parameters": [_SESSION, _NUMBER],
            "get": _operation("the full result of a delegated task"),
        },
        f"{one}/tasks/{{number}}": {
            "parameters": [_SESSION, _NUMBER],
            "delete": _operation("cancels a delegated task"),
            "post": _operation(
                "what a delegated task came to, from a client that solves it",
                answer="202",
                requestBody=_body(_object("digest", digest=_TEXT)),
            ),
        },
    }
    event = {
        "type": "object",
        "required": ["seq", "time", "kind"],
        "description": "; ".join(f"{kind}: {told}" for kind, told in EVENTS.items()),
        "properties": {
            "seq": {"type": "integer"},
            "time": {"type": "number"},
            "kind": {"enum": sorted(EVENTS)},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "JoyVL live sessions", "version": __version__},
        "components": {
            "schemas": {"Event": event},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
        "paths": paths,
    }
