"""A client of live sessions.

async with Client("http://127.0.0.1:8700") as client:
    async with client.session({"kind": "sample"}) as session:
        await session.say("Tell me when a dog appears.")
        async for event in session.events():
            ...
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

ENDED = 4000
"""Code by which a server closes the WebSocket of a session that has ended, once all was told."""


class ServerError(RuntimeError):
    """The server refused something, or gave no answer; `status` is its HTTP status, or 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Speaks to one server. token: where it asks for one."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Lets go of the connections; sessions stay."""
        await self._http.close()

    async def call(self, method: str, path: str, **given: Any) -> Any:
        """The JSON of an answer. Raises `ServerError`."""
        async with self._asked(method, path, **given) as answer:
            body = await answer.read()
            try:
                told = json.loads(body) if body else {}
            except ValueError:  # a proxy's page, say
                told = None
            if answer.status >= 400:
                why = told.get("error") if isinstance(told, dict) else None
                raise ServerError(answer.status, str(why or answer.reason))
            if told is None:
                raise ServerError(answer.status, "the answer is no JSON")
            return told

    async def bytes(self, path: str) -> bytes:
        """The body of an answer, such as a picture or an artifact."""
        async with self._asked("GET", path) as answer:
            if answer.status >= 400:
                raise ServerError(answer.status, str(answer.reason))
            return await answer.read()

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, **given: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer to a request. Raises `ServerError` where there is none, or half of one."""
        try:
            async with self._http.request(method, f"{self._url}{path}", **given) as answer:
                yield answer
        except (aiohttp.ClientError, OSError) as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> ServerError:
        why = str(error) or type(error).__name__
        return ServerError(0, f"{self._url} gives no answer ({why}); is it running?")

    async def open(self, source: Mapping[str, Any], **settings: Any) -> Session:
        """A new session on a source, such as {"kind": "push"}."""
        told = await self.call("POST", "/v1/sessions", json={"source": dict(source), **settings})
        return Session(self, told["session"])

    @asynccontextmanager
    async def session(self, source: Mapping[str, Any], **settings: Any) -> AsyncIterator[Session]:
        """A session that is closed in the end."""
        session = await self.open(source, **settings)
        try:
            yield session
        finally:
            await session.close()

    @asynccontextmanager
    async def socket(self, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket. Raises `ServerError` where it can't be had."""
        try:
            socket = await self._http.ws_connect(f"{self._url}{path}", protocols=("joyvl",))
        except aiohttp.WSServerHandshakeError as error:
            raise ServerError(error.status, f"{path}: is no WebSocket ({error.status})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unanswered(error) from None
        try:
            yield socket
        finally:
            await socket.close()


class Session:
    """One session of a server."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self.place = f"/v1/sessions/{name}"
        self.seen = 0
        """The last event that was read."""

    async def say(self, text: str) -> None:
        await self.client.call("POST", f"{self.place}/queries", json={"text": text})

    async def push(self, jpeg: bytes, second: int | None = None) -> None:
        """A picture of now, or of a whole second."""
        told = {"second": str(second)} if second is not None else {}
        kind = {"Content-Type": "image/jpeg"}
        path = f"{self.place}/frames"
        await self.client.call("POST", path, params=told, data=jpeg, headers=kind)

    async def give(self, task: int, digest: str) -> None:
        """What a task came to, where the client solves it."""
        await self.client.call("POST", f"{self.place}/tasks/{task}", json={"digest": digest})

    async def state(self) -> dict[str, Any]:
        return dict(await self.client.call("GET", self.place))

    async def after(self, seq: int, wait: int = 0) -> list[dict[str, Any]]:
        """The events after number `seq`, once there are some or `wait` seconds are over."""
        path = f"{self.place}/events?after={seq}&wait={wait}"
        return list((await self.client.call("GET", path))["events"])

    async def events(self, *, again: float = 1.0) -> AsyncIterator[dict[str, Any]]:
        """The events as they come, until the session is closed; a connection that breaks is made
        anew after `again` seconds, and goes on after the last event that was read. A server that
        gives no answer is tried again without end: bound it by `asyncio.timeout`, say. Raises
        `ServerError` where nothing is kept of the session any more."""
        while True:
            try:
                async with self.client.socket(f"{self.place}/socket?after={self.seen}") as socket:
                    async for message in socket:
                        event = message.json()
                        self.seen = max(self.seen, event.get("seq", 0))
                        yield event
                        if event["kind"] == "closed":
                            return
                    if socket.close_code == ENDED:
                        return
            except ServerError as error:
                if error.status in (401, 403, 404):
                    raise ServerError(error.status, "the session is gone") from None
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(again)

    async def close(self) -> None:
        try:
            await self.client.call("DELETE", self.place)
        except ServerError as error:
            if error.status != 404:
                raise
