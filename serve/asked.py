"""What is read of requests, every word of it checked: bodies, texts and numbers within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from serve.sessions import Refused

BODY = 256 * 1024
"""Bytes of JSON that a request may have."""

WAIT = 25.0
"""Seconds for which a client is waited for."""


class Asked(ValueError):
    """A request that can't be read; the message says what is wrong with it."""


async def body_of(request: web.Request, most: int, what: str) -> bytes:
    """The body, of at most so many bytes."""
    if (request.content_length or 0) > most:
        raise Refused(f"{what} has at most {most} bytes", 413)
    data = bytearray()
    async with asyncio.timeout(WAIT):
        async for piece in request.content.iter_chunked(65536):
            data += piece
            if len(data) > most:
                raise Refused(f"{what} has at most {most} bytes", 413)
    return bytes(data)


async def json_of(request: web.Request) -> dict[str, Any]:
    # A page in a browser can't send this type to another site without being asked first.
    if request.content_type != "application/json":
        raise Refused("the body must be application/json", 415)
    try:
        async with asyncio.timeout(WAIT):
            asked = json.loads(await request.read())
    except (ValueError, RecursionError) as wrong:
        raise Asked(f"the body is no JSON: {str(wrong)[:100]}") from None
    if not isinstance(asked, dict):
        raise Asked("the body is no JSON object")
    return asked


def only(asked: Mapping[str, Any], known: set[str], where: str = "") -> None:
    for name in asked:
        if name not in known:
            raise Asked(f"{where}{name[:50]!r} is not known; there are {', '.join(sorted(known))}")


def text_of(asked: Mapping[str, Any], name: str, most: int, default: Any = ...) -> Any:
    if name not in asked and default is not ...:
        return default
    value = asked.get(name)
    if not isinstance(value, str):
        raise Asked(f"{name} is a text")
    if len(value) > most:
        raise Asked(f"{name} has {len(value)} characters, at most {most}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Asked(f"{name} holds half of a character") from None
    return value


def count_of(request: web.Request, name: str, most: int) -> int:
    value = request.query.get(name, "0")
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= most):
        raise Asked(f"{name} is a whole number from 0 to {most}")
    return int(value)
