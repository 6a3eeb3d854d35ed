"""Who may ask a server anything: tokens, origins, hosts, and clients that never finish asking."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

OPEN_PATHS = ("/health", "/", "/page.js", "/page.css", "/openapi.json")
"""Answered without a token: they tell nothing of any session."""

PROTOCOL = "joyvl"
"""The WebSocket protocol; a browser, which can't set headers, sends "token.<token>" beside it."""

TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
"""What a token may be: the names of WebSocket protocols and addresses of pages hold these
characters as they are."""


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(slots=True)
class Guard:
    """Lets requests through or answers them itself.

    token: asked of every request but `OPEN_PATHS`; "": none is. hosts: names by which the server
    may be called, beside loopback ones (a page of another name, rebound to this machine, is
    refused). origins: of pages that are let through, beside its own; no headers are sent that
    would let their scripts read answers, so that a WebSocket is all they have.
    """

    token: str = ""
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    refused: int = 0
    serving: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    answered: weakref.WeakKeyDictionary[Any, float] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    @web.middleware
    async def check(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            self.serving.add(transport)
        try:
            wrong = self._wrong(request)
            if wrong is not None:
                self.refused += 1
                return error(*wrong)
            return await handler(request)
        finally:
            if transport is not None:
                self.serving.discard(transport)
                self.answered[transport] = time.monotonic()

    def _wrong(self, request: web.Request) -> tuple[int, str] | None:
        host = request.host.rpartition(":")[0] if _has_port(request.host) else request.host
        if not is_loopback(host) and host.casefold() not in self.hosts:
            return 403, f"this server is not called {host[:100]!r}; serve.hosts lists its names"
        origin = request.headers.get("Origin")
        if origin is not None and not self._known(origin, request.host):
            return 403, "pages of that origin may not use this server"
        if self.token and request.path not in OPEN_PATHS and not self._has_token(request):
            return 401, "a wrong token, or none"
        return None

    def _known(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:  # half of an IPv6 address, say
            return False
        same = parts.scheme in ("http", "https") and parts.netloc.casefold() == host.casefold()
        return same or origin in self.origins

    def _has_token(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not given:
            offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
            tokens = [each.strip() for each in offered if each.strip().startswith("token.")]
            given = tokens[0].removeprefix("token.") if tokens else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def error(status: int, message: str) -> web.Response:
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return web.json_response({"error": message}, status=status, headers=headers)


def _has_port(host: str) -> bool:
    return ":" in host and not host.endswith("]")


def _connected(protocol: Any) -> bool:
    return protocol.transport is not None and not protocol.transport.is_closing()


class Listener:
    """Listens for an application, and cuts off connections that are `slow`: no whole request in so
    many seconds, at the start or after the last answer. More than `most` at once are refused."""

    def __init__(
        self, runner: web.AppRunner, guard: Guard, *, slow: float = 15.0, most: int = 500
    ) -> None:
        self._runner, self._guard, self._slow, self._most = runner, guard, slow, most
        self._protocols: list[tuple[Any, float]] = []  # with when they were made
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.cut = 0

    async def start(self, host: str, port: int) -> int:
        """The port that is listened on."""
        self._server = await asyncio.get_running_loop().create_server(self._made, host, port)
        self._sweeper = asyncio.create_task(self._sweep(), name="slow connections")
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()

    def _made(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        protocol = self._runner.server()
        # The loop connects it only after what is scheduled here; what that schedules comes later.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._admit, protocol)
        return protocol

    def _admit(self, protocol: Any) -> None:
        """Takes in a protocol that was just connected, or cuts it off where there are enough."""
        self._protocols = [one for one in self._protocols if _connected(one[0])]
        if len(self._protocols) >= self._most:
            self._cut(protocol)
        elif _connected(protocol):
            self._protocols.append((protocol, time.monotonic()))

    def _cut(self, protocol: Any) -> None:
        if protocol.transport is not None:
            self.cut += 1
            protocol.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._slow / 3))
            now = time.monotonic()
            self._protocols = [one for one in self._protocols if _connected(one[0])]
            for protocol, made in self._protocols:
                transport = protocol.transport
                if transport in self._guard.serving:
                    continue
                since = max(made, self._guard.answered.get(transport, made))
                if now - since > self._slow:
                    self._cut(protocol)
