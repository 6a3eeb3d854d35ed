"""All live sessions of a server: opened within limits, driven by their sources, and closed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from joyvl_train.background import Outcome
from joyvl_train.pictures import encode
from serve.artifacts import Artifacts
from serve.bridge import Backend, Bridge
from serve.events import EventLog
from serve.feed import Feed
from serve.live import Live
from serve.live_settings import LiveSettings, Model, Module
from serve.memory import Keeper
from serve.source import Second
from serve.sources import Sources, Watched
from serve.speech import Ears, Speech, Voice

log = logging.getLogger("joyvl.serve")


class Refused(ValueError):
    """A session that can't be had; `status` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use. Times are in seconds.

    idle: after which a session that no client follows and no source feeds is closed. longest: of
    any session's life. kept: for which the artifacts of an ended session can be fetched. pushes:
    pictures that a client may push in a second.
    """

    sessions: int = 16
    idle: float = 120.0
    longest: float = 24 * 3600.0
    kept: float = 600.0
    pushes: int = 30
    picture_bytes: int = 2 * 2**20
    picture_pixels: int = 4_000_000
    text_chars: int = 1000
    opening_chars: int = 4000
    pins: int = 8
    events: int = 2000
    tasks: int = 4
    task_seconds: float = 120.0
    artifact_bytes: int = 5 * 2**20
    sound_bytes: int = 4 * 2**20
    sound_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model that sessions may ask for, and how memory is kept with it. replicas: several of the
    same model; a session stays with one. warning: what who uses it should know of it, "" for
    nothing."""

    name: str
    replicas: Sequence[Model]
    keeper: Callable[[Model], Keeper]
    settings: LiveSettings = field(default_factory=LiveSettings)
    warning: str = ""

    def model_for(self, session: str) -> Model:
        """The replica of a session, by rendezvous hashing: when one is added or goes, only the
        sessions that are its own move."""
        return max(
            enumerate(self.replicas), key=lambda item: _weight(session, f"{self.name} {item[0]}")
        )[1]


@dataclass(slots=True)
class Open:
    """A session with what feeds it. shown: its newest picture. followers: clients that read it."""

    live: Live
    watched: Watched
    artifacts: Artifacts
    model: str
    opened: float
    shown: Image.Image | None = None
    followers: int = 0
    heard: float = 0.0
    driving: asyncio.Task[None] | None = None
    ears: Ears | None = None
    listening: bool = False
    pushed: list[float] = field(default_factory=list)
    ended: float | None = None
    ending: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Something came from a client, or from the source."""
        self.heard = time.monotonic()

    def may_push(self, most: int) -> bool:
        """Whether one more picture is within `most` a second."""
        now = time.monotonic()
        self.pushed = [at for at in self.pushed if now - at < 1.0]
        if len(self.pushed) >= most:
            return False
        self.pushed.append(now)
        return True

    def picture(self) -> bytes | None:
        """The newest picture as a JPEG."""
        return None if self.shown is None else encode(self.shown, 80)


class Sessions:
    """Runs in one event loop; `close` ends all of them."""

    def __init__(
        self,
        models: Sequence[Served],
        sources: Sources,
        folder: Path,
        *,
        limits: Limits | None = None,
        background: Callable[[EventLog], Backend] | None = None,
        modules: Callable[[], Sequence[Module]] = tuple,
        speech: Speech | None = None,
        place: str = "/v1/sessions",
    ) -> None:
        """folder: of artifacts. background: makes what solves the delegated tasks of a
        session, whose events it may read."""
        self.models = {model.name: model for model in models}
        self.sources, self.limits = sources, limits or Limits()
        self._folder, self._background, self._modules = folder, background, modules
        self.speech = speech or Speech()
        self._place = place
        self._all: dict[str, Open] = {}
        self._gone: Counter[str] = Counter()  # events of sessions that were dropped
        self.latencies: deque[float] = deque(maxlen=100_000)
        """Seconds that steps of ended sessions took their models, the newest."""
        self.opened = 0
        self.draining = False

    def __len__(self) -> int:
        """Sessions that live."""
        return sum(each.ended is None for each in self._all.values())

    def __iter__(self) -> Any:
        return iter(list(self._all.items()))

    def counted(self) -> Counter[str]:
        """Events by kind, of all sessions that there were."""
        return sum((each.live.counts for each in self._all.values()), self._gone.copy())

    def get(self, name: str, *, ended: bool = False) -> Open:
        """A session by its id. Raises `Refused` where there is none, or it has ended."""
        found = self._all.get(name)
        if found is None or (found.ended is not None and not ended):
            raise Refused("there is no such session", 404)
        return found

    def open(
        self,
        source: Mapping[str, Any],
        *,
        model: str | None = None,
        mode: str = "default",
        opening: str = "",
        pins: Sequence[str] = (),
        seed: int = 0,
    ) -> tuple[str, Open]:
        """A new session, whose source is being read from now on. Raises `Refused`, `NotAllowed`."""
        if self.draining:
            raise Refused("the server is stopping", 503)
        served = self.models.get(model) if model is not None else next(iter(self.models.values()))
        if served is None:
            raise Refused(
                f"there is no model {str(model)[:100]!r}, only {', '.join(self.models)}", 404
            )
        if mode not in served.settings.modes:
            raise Refused(
                f"there is no mode {str(mode)[:100]!r}, only {', '.join(served.settings.modes)}"
            )
        watch = self.sources.find(source)
        # After the rest: a client that makes room by closing its own session then gets this one.
        if len(self) >= self.limits.sessions:
            raise Refused(f"{self.limits.sessions} sessions are open already", 429)
        name = secrets.token_urlsafe(16)
        artifacts = Artifacts(
            self._folder / name,
            f"{self._place}/{name}/artifacts",
            most_bytes=self.limits.artifact_bytes,
        )
        replica = served.model_for(name)
        events = EventLog(self.limits.events)
        bridge = None
        if self._background is not None:
            bridge = partial(self._bridge, partial(self._background, events), artifacts)
        try:
            live = Live(
                name,
                replica,
                served.settings,
                keeper=partial(served.keeper, replica),
                bridge=bridge,
                modules=self._modules,
                mode=mode,
                opening=opening,
                pins=pins,
                seed=seed,
                log=events,
                voice=None if self.speech.say is None else Voice(self.speech.say),
            )
        except ValueError as error:  # a mode that this model can't be given
            raise Refused(str(error)) from None
        feed = Feed(self.sources.most)
        with ExitStack() as undo:
            undo.callback(live.session.close)
            watched = watch(feed)
            undo.pop_all()
        self.opened += 1
        found = Open(live, watched, artifacts, served.name, time.monotonic())
        if self.speech.hear is not None and self.speech.find is not None:
            found.ears = Ears(
                self.speech.hear,
                self.speech.find,
                live.hear,
                lambda reason: live.note("speech", second=None, error=reason[:300]),
            )
        found.touch()
        feed.changed = lambda state, detail: live.note("source", state=state, detail=detail[:300])
        found.driving = asyncio.create_task(self._drive(found), name=f"session {name}")
        found.driving.add_done_callback(partial(self._driven, found))
        self._all[name] = found
        return name, found

    def _bridge(
        self, backend: Callable[[], Backend], artifacts: Artifacts, told: Callable[[Outcome], None]
    ) -> Bridge:
        return Bridge(
            backend(),
            told,
            timeout=self.limits.task_seconds,
            most=self.limits.tasks,
            artifacts=artifacts,
        )

    async def close_one(self, name: str, reason: str = "closed") -> None:
        """Ends a session; its artifacts stay for `Limits.kept` seconds."""
        found = self._all.get(name)
        if found is not None:
            # Whoever asks again waits for the same end; one who stops waiting does not stop it.
            await asyncio.shield(self._ending(found, reason))

    def _ending(self, found: Open, reason: str) -> asyncio.Task[None]:
        if found.ending is None:
            found.ended = time.monotonic()
            found.ending = asyncio.create_task(self._end(found, reason))
        return found.ending

    async def _end(self, found: Open, reason: str) -> None:
        if found.driving is not None:
            found.driving.cancel()
            await asyncio.wait([found.driving])
        await found.watched.stop()
        if found.ears is not None:
            await found.ears.end()
        await found.live.close(reason)

    async def drop(self, name: str) -> None:
        """Ends a session and deletes all that is kept of it; one that is gone stays so."""
        await self.close_one(name)
        found = self._all.pop(name, None)
        if found is not None:
            self._gone += found.live.counts
            self.latencies.extend(found.live.latencies)
            await asyncio.to_thread(found.artifacts.drop)

    async def sweep(self) -> None:
        """Closes what is idle or too old, and deletes what was kept long enough."""
        now = time.monotonic()
        for name, each in self:
            if each.ended is not None:
                if now - each.ended > self.limits.kept:
                    await self.drop(name)
            elif now - each.opened > self.limits.longest:
                await self.close_one(name, "it has lived as long as it may")
            elif not each.followers and now - each.heard > self.limits.idle:
                await self.close_one(name, "nobody was there")

    async def close(self, reason: str = "the server is stopping") -> None:
        """Ends all sessions and deletes what is kept of them."""
        self.draining = True
        for name, _ in self:
            await self.close_one(name, reason)
        for name, _ in self:
            await self.drop(name)

    async def _drive(self, found: Open) -> None:
        def shown(second: Second) -> None:
            found.shown = second.frames[-1] if second.frames else found.shown
            if found.watched.kind != "sample":  # that one never ends by itself
                found.touch()

        await found.live.run(found.watched.feed, shown)

    def _driven(self, found: Open, done: asyncio.Task[None]) -> None:
        """Where it was an error of ours that ended a session, its clients are told that it is over,
        and the log is told why."""
        error = None if done.cancelled() else done.exception()
        if error is not None:
            found.live.note("engine", second=None, error="the session broke; open another")
            log.error("session broke", exc_info=error)
            self._ending(found, "it broke")


def _weight(session: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{session} {replica}".encode(), digest_size=8).digest()
