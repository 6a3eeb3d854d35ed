"""Live sessions over HTTP and WebSocket: thin, every word of it checked (`serve/openapi.py` tells
of it).

    server = Server(sessions, guard)
    await server.start("127.0.0.1", 8700)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from joyvl_train.conversation import clean
from serve.asked import BODY, WAIT, Asked, body_of, count_of, json_of, only, text_of
from serve.guard import PROTOCOL, Guard, Listener, error
from serve.measures import Measures
from serve.openapi import described
from serve.pushed import PictureError, read_picture
from serve.sessions import Open, Refused, Sessions
from serve.sources import NotAllowed
from serve.speech import SoundError, SpeechError, read_wav

PAGE = Path(__file__).with_name("page")
_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
ENDED = 4000
"""Code by which a WebSocket closes once all was told of a session that has ended."""

log = logging.getLogger("joyvl.serve")

Offer = Callable[[Open, str, str, str], Awaitable[dict[str, str]]]
"""(session, SDP, type, address of who asks) -> the answer to a WebRTC offer."""


class Server:
    """One application over `sessions`. offer: answers WebRTC offers; None: there is no WebRTC."""

    def __init__(
        self,
        sessions: Sessions,
        guard: Guard | None = None,
        *,
        offer: Offer | None = None,
        measures: Measures | None = None,
        slow: float = 15.0,
    ) -> None:
        self.sessions, self.guard = sessions, guard or Guard()
        self._offer, self._measures = offer, measures or Measures(sessions)
        self._slow, self._stopped = slow, False
        self._sockets: set[web.WebSocketResponse] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens until `stop`; `port` tells where."""
        app = web.Application(client_max_size=BODY, middlewares=[self._answered, self.guard.check])
        self._routes(app)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=5, keepalive_timeout=30
        )
        await self._runner.setup()
        self._listener = Listener(self._runner, self.guard, slow=self._slow)
        self.port = await self._listener.start(host, port)
        self._tasks = [asyncio.create_task(self._sweep(), name="idle sessions")]

    async def stop(self) -> None:
        """Ends all sessions, tells their clients, and stops listening; again it does nothing."""
        if self._stopped:
            return
        self._stopped = True
        await self.sessions.close()
        for socket in tuple(self._sockets):
            await socket.close(code=1001, message=b"the server is stopping")
        for task in self._tasks:
            task.cancel()
        await self._listener.stop()
        await self._runner.cleanup()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            await self.sessions.sweep()

    def _routes(self, app: web.Application) -> None:
        one = "/v1/sessions/{session}"
        app.router.add_get("/", self._page)
        app.router.add_get("/{file:page\\.(?:js|css)}", self._page)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/sessions", self._list)
        app.router.add_post("/v1/sessions", self._open)
        app.router.add_get(one, self._state)
        app.router.add_patch(one, self._change)
        app.router.add_delete(one, self._close)
        app.router.add_post(f"{one}/reset", self._reset)
        app.router.add_post(f"{one}/queries", self._query)
        app.router.add_post(f"{one}/frames", self._frame)
        app.router.add_get(f"{one}/frame", self._picture)
        app.router.add_post(f"{one}/speech", self._heard)
        app.router.add_get(one + "/speech/{number:\\d{1,9}}", self._spoken)
        app.router.add_get(f"{one}/events", self._events)
        app.router.add_get(f"{one}/socket", self._socket)
        app.router.add_post(f"{one}/offer", self._offered)
        app.router.add_get(one + "/artifacts/{number:\\d{1,6}}", self._artifact)
        app.router.add_delete(one + "/tasks/{number:\\d{1,6}}", self._cancel)
        app.router.add_post(one + "/tasks/{number:\\d{1,6}}", self._give)

    @web.middleware
    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The answer, or what is wrong with the request; whatever it is, it is counted."""
        status = 500
        try:
            response = await self._put(request, handler)
            status = response.status
        finally:
            self._measures.request(request, status)
        if not response.prepared:
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response

    async def _put(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return error(refused.status, str(refused))
        except (Asked, NotAllowed, PictureError, SoundError) as wrong:
            return error(400, str(wrong))
        except web.HTTPException as raised:
            return error(raised.status, raised.reason)
        except TimeoutError:
            return error(408, "the request did not end in time")

    # The server

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("file", "index.html")
        kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
        body = await asyncio.to_thread((PAGE / name).read_bytes)
        return web.Response(
            body=body,
            content_type=kinds[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Content-Security-Policy": _OWN},
        )

    async def _health(self, request: web.Request) -> web.Response:
        draining = self.sessions.draining
        told = {"status": "draining" if draining else "ok", "sessions": len(self.sessions)}
        return web.json_response(told, status=503 if draining else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._measures.text(), headers={"Content-Type": Measures.KIND})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(described())

    async def _models(self, request: web.Request) -> web.Response:
        models = [
            {"id": each.name, "modes": list(each.settings.modes), "warning": each.warning}
            for each in self.sessions.models.values()
        ]
        allowed = self.sessions.sources
        files = await asyncio.to_thread(allowed.files)
        sources = {"kinds": allowed.kinds(), "files": files}
        if self._offer is None:
            sources["kinds"] = [kind for kind in sources["kinds"] if kind != "webrtc"]
        speech = self.sessions.speech
        told = {"hears": speech.hear is not None, "speaks": speech.say is not None}
        return web.json_response({"models": models, "sources": sources, "speech": told})

    # Sessions

    async def _list(self, request: web.Request) -> web.Response:
        told = [
            {"session": name, "model": each.model, "source": each.watched.kind}
            for name, each in self.sessions
            if each.ended is None
        ]
        return web.json_response({"sessions": told})

    async def _open(self, request: web.Request) -> web.Response:
        asked = await json_of(request)
        limits = self.sessions.limits
        known = {"source", "model", "mode", "opening", "pins", "seed"}
        only(asked, known)
        source = asked.get("source", {"kind": "push"})
        if not isinstance(source, dict):
            raise Asked("source is a mapping with its kind")
        only(source, {"kind", "name", "url", "paced"}, "source.")
        pins = asked.get("pins", [])
        if not isinstance(pins, list) or len(pins) > limits.pins:
            raise Asked(f"pins is a list of at most {limits.pins} texts")
        seed = asked.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise Asked("seed is a whole number from 0 to 2147483647")
        name, found = self.sessions.open(
            source,
            model=text_of(asked, "model", 200, None),
            mode=text_of(asked, "mode", 100, "default"),
            opening=text_of(asked, "opening", limits.opening_chars, ""),
            pins=[text_of({"pins": pin}, "pins", limits.text_chars) for pin in pins],
            seed=seed,
        )
        log.info("session opened", extra={"session": name, "source": found.watched.kind})
        return web.json_response({"session": name, "model": found.model}, status=201)

    async def _state(self, request: web.Request) -> web.Response:
        found = self._session(request)
        feed = found.watched.feed
        told = {
            **found.live.state(),
            "model": found.model,
            "source": {"kind": found.watched.kind, "state": feed.state, "dropped": feed.dropped},
        }
        return web.json_response(told)

    async def _change(self, request: web.Request) -> web.Response:
        asked = await json_of(request)
        only(asked, {"mode"})
        self._set_mode(self._session(request), text_of(asked, "mode", 100))
        return await self._state(request)

    def _set_mode(self, found: Open, mode: str) -> None:
        try:
            found.live.set_mode(mode)
        except ValueError as wrong:
            raise Asked(str(wrong)) from None

    async def _close(self, request: web.Request) -> web.Response:
        self._session(request, ended=True)
        await self.sessions.drop(request.match_info["session"])
        return web.json_response({"closed": True})

    async def _reset(self, request: web.Request) -> web.Response:
        await self._session(request).live.reset()
        return web.json_response({"reset": True})

    async def _query(self, request: web.Request) -> web.Response:
        asked = await json_of(request)
        only(asked, {"text"})
        self._ask(self._session(request), asked)
        return web.json_response({"accepted": True}, status=202)

    def _ask(self, found: Open, asked: Mapping[str, Any]) -> None:
        text = text_of(asked, "text", self.sessions.limits.text_chars)
        if not text.strip():
            raise Asked("text is empty")
        if not found.live.ask(text):
            raise Refused("too many texts wait for the next second", 429)

    async def _frame(self, request: web.Request) -> web.Response:
        found = self._session(request)
        if request.content_type != "image/jpeg":
            raise Refused("a frame is one image/jpeg", 415)
        data = await body_of(request, self.sessions.limits.picture_bytes, "a frame")
        second = request.query.get("second")
        if second is not None and not (second.isascii() and second.isdigit() and len(second) < 8):
            raise Asked("second is a whole number of seconds")
        await self._push(found, data, None if second is None else int(second))
        return web.json_response({"accepted": True}, status=202)

    async def _push(self, found: Open, data: bytes, second: int | None) -> None:
        if found.watched.pushed is None or found.watched.kind != "push":
            raise Refused(
                f"the session's source is {found.watched.kind}; open one of kind push", 409
            )
        if not found.may_push(self.sessions.limits.pushes):
            raise Refused(f"at most {self.sessions.limits.pushes} frames a second", 429)
        image = await asyncio.to_thread(read_picture, data, self.sessions.limits.picture_pixels)
        found.touch()
        if second is None:
            found.watched.pushed.add(lambda: image)
            return
        try:
            found.watched.pushed.whole(second, image)
        except ValueError as wrong:
            raise Asked(str(wrong)) from None

    async def _picture(self, request: web.Request) -> web.Response:
        found = self._session(request, ended=True)
        data = await asyncio.to_thread(found.picture)
        if data is None:
            raise Refused("there is no picture yet", 404)
        return web.Response(body=data, content_type="image/jpeg")

    async def _heard(self, request: web.Request) -> web.Response:
        """Something that the user says aloud, whole: it is written down and asked."""
        found, hear = self._session(request), self.sessions.speech.hear
        if hear is None:
            raise Refused("this server hears nothing; it is set by speech=", 409)
        if request.content_type not in ("audio/wav", "audio/x-wav", "audio/wave"):
            raise Refused("speech is one audio/wav", 415)
        limits = self.sessions.limits
        data = await body_of(request, limits.sound_bytes, "speech")
        sound = await asyncio.to_thread(read_wav, data, limits.sound_seconds)
        found.touch()
        if found.listening:
            raise Refused("something is being written down; send the next after it", 429)
        found.listening = True
        try:
            text = await hear(sound)
        except SpeechError as wrong:
            raise Refused(str(wrong), 502) from None
        finally:
            found.listening = False
        if text and not found.live.hear(text[: limits.text_chars]):
            raise Refused("too many texts wait for the next second", 429)
        return web.json_response({"text": text}, status=202)

    async def _spoken(self, request: web.Request) -> web.Response:
        voice = self._session(request, ended=True).live.voice
        spoken = voice and voice.get(int(request.match_info["number"]))
        if not spoken:
            raise Refused("that is not kept", 404)
        return web.Response(body=spoken.wav, content_type="audio/wav")

    async def _events(self, request: web.Request) -> web.Response:
        """Those after `after`; where there is none yet, it waits up to `wait` seconds for one."""
        found = self._session(request, ended=True)
        after, wait = count_of(request, "after", 2**53), count_of(request, "wait", int(WAIT))
        told = found.live.log
        found.touch()
        if not told.after(after) and wait and not told.closed:
            found.followers += 1
            try:
                async with asyncio.timeout(wait):
                    async for _ in told.follow(after):
                        break
            except TimeoutError:
                pass
            finally:
                found.followers -= 1
        return web.json_response({"events": told.after(after), "last": told.last})

    async def _artifact(self, request: web.Request) -> web.Response:
        found = self._session(request, ended=True)
        number = int(request.match_info["number"])
        kept = await asyncio.to_thread(found.artifacts.get, number)
        if kept is None:
            raise Refused("there is no such artifact", 404)
        # It may be a page that somebody else wrote: it runs nothing and reaches nowhere.
        headers = {"Content-Security-Policy": _SANDBOX, "Content-Type": kept.media_type}
        return web.Response(body=kept.data, headers=headers)

    async def _cancel(self, request: web.Request) -> web.Response:
        found = self._session(request)
        if not found.live.cancel(int(request.match_info["number"])):
            raise Refused("no such task runs", 404)
        return web.json_response({"cancelled": True})

    async def _give(self, request: web.Request) -> web.Response:
        """What a task came to, from a client that solves its tasks itself."""
        found = self._session(request)
        asked = await json_of(request)
        only(asked, {"digest"})
        digest = text_of(asked, "digest", self.sessions.limits.text_chars)
        if not clean(digest):
            raise Asked("digest is empty")
        if not await found.live.give(int(request.match_info["number"]), digest):
            raise Refused("no such task runs", 404)
        return web.json_response({"accepted": True}, status=202)

    async def _offered(self, request: web.Request) -> web.Response:
        found = self._session(request)
        asked = await json_of(request)
        only(asked, {"sdp", "type"})
        if self._offer is None or found.watched.kind != "webrtc":
            raise Refused("the session takes no WebRTC; open one of kind webrtc", 409)
        sdp = text_of(asked, "sdp", 64_000)
        if asked.get("type") != "offer":
            raise Asked("type is offer")
        try:
            answer = await self._offer(found, sdp, "offer", request.remote or "")
        except ValueError as wrong:
            raise Asked(f"sdp: {str(wrong)[:200]}") from None
        return web.json_response(answer)

    # WebSocket

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Events out, from `after` on; in: JSON commands, and pictures as binary messages. Of a
        session that has ended what is kept is told, and nothing is taken."""
        found = self._session(request, ended=True)
        after = count_of(request, "after", 2**53)
        socket = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=20,
            max_msg_size=self.sessions.limits.picture_bytes,
        )
        if not socket.can_prepare(request):
            raise Refused("this is a WebSocket", 426)
        await socket.prepare(request)
        self._sockets.add(socket)
        found.followers += 1
        sending = asyncio.create_task(self._send(socket, request, found, after))
        try:
            async for message in socket:
                found.touch()
                if found.ended is not None:
                    await _tell(socket, {"kind": "error", "error": "the session has ended"})
                elif message.type == WSMsgType.TEXT:
                    await self._told(socket, found, message.data)
                elif message.type == WSMsgType.BINARY:
                    await self._answer(socket, self._push(found, message.data, None))
        except (TimeoutError, ConnectionError):
            _abort(request)
        finally:
            found.followers -= 1
            found.touch()
            self._sockets.discard(socket)
            sending.cancel()
            await asyncio.wait([sending])
        return socket

    async def _send(
        self, socket: web.WebSocketResponse, request: web.Request, found: Open, after: int
    ) -> None:
        """Tells of all events, and closes the socket after the last one there will be."""
        try:
            async for event in found.live.log.follow(after):
                await _tell(socket, event)
            async with asyncio.timeout(WAIT):
                await socket.close(code=ENDED, message=b"the session has ended")
        except (TimeoutError, ConnectionError):
            _abort(request)

    async def _told(self, socket: web.WebSocketResponse, found: Open, text: str) -> None:
        try:
            asked = json.loads(text) if len(text) <= BODY else None
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            await _tell(socket, {"kind": "error", "error": "no JSON object"})
            return
        await self._answer(socket, self._command(socket, found, asked))

    async def _answer(self, socket: web.WebSocketResponse, work: Awaitable[None]) -> None:
        try:
            await work
        except (Asked, Refused, PictureError) as wrong:
            await _tell(socket, {"kind": "error", "error": str(wrong)})

    async def _command(
        self, socket: web.WebSocketResponse, found: Open, asked: Mapping[str, Any]
    ) -> None:
        match asked.get("kind"):
            case "query":
                self._ask(found, asked)
            case "config":
                self._set_mode(found, text_of(asked, "mode", 100))
            case "reset":
                await found.live.reset()
            case "sync":
                await _tell(socket, {"kind": "state", "state": found.live.state()})
            case "cancel":
                number = asked.get("task")
                if not isinstance(number, int) or not found.live.cancel(number):
                    raise Asked("no such task runs")
            case other:
                raise Asked(
                    f"kind is {str(other)[:50]!r}; there are query, config, reset, sync, cancel"
                )

    def _session(self, request: web.Request, *, ended: bool = False) -> Open:
        return self.sessions.get(request.match_info["session"], ended=ended)


async def _tell(socket: web.WebSocketResponse, told: Mapping[str, Any]) -> None:
    """Raises `TimeoutError` for a client that does not read."""
    async with asyncio.timeout(WAIT):
        await socket.send_json(told)


def _abort(request: web.Request) -> None:
    """Lets go of a client that is gone, or does not read: what waits for it is thrown away."""
    if request.transport is not None:
        request.transport.abort()
