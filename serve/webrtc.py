"""A browser's camera or screen over WebRTC, by aiortc: its pictures are pushed into a session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError
from av import AudioResampler

from serve.guard import is_loopback
from serve.pushed import Pushed
from serve.sessions import Open
from serve.source import Notice
from serve.speech import RATE, Ears

_BAD = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError),
    InvalidStateError,
    TimeoutError,
)
"""What aiortc raises for a description that it can't read, or not in time."""


@dataclass(slots=True)
class WebRtc:
    """The connections of all sessions, one each. Runs in one event loop; `close` it in the end.

    wait: seconds for which a connection may take to be made, or stay without a picture.
    """

    wait: float = 20.0
    _connections: dict[str, RTCPeerConnection] = field(default_factory=dict)
    _reading: set[asyncio.Task[None]] = field(default_factory=set)

    async def offer(self, found: Open, sdp: str, kind: str, remote: str) -> dict[str, str]:
        """The answer to a browser's offer; once there is one, a session's earlier connection ends.
        remote: the address that the offer came from: no packet goes to any other that the offer
        names. Raises `ValueError`, and leaves the earlier connection as it was."""
        assert found.watched.pushed is not None
        name = found.live.name
        if not sdp.startswith("v=0") or "\nm=video" not in sdp:
            raise ValueError("the offer has no video")
        own = get_host_addresses(use_ipv4=True, use_ipv6=True)
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        pushed = found.watched.pushed

        @connection.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "video":
                reading = asyncio.create_task(self._read(name, connection, track, pushed, found))
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)
            elif found.ears is not None:
                hearing = asyncio.create_task(self._hear(track, found.ears))
                self._reading.add(hearing)
                hearing.add_done_callback(self._reading.discard)

        try:
            description = RTCSessionDescription(only_from(sdp, remote, own), kind)
            async with asyncio.timeout(self.wait):
                await connection.setRemoteDescription(description)
                answer = await connection.createAnswer()
                assert answer is not None
                await connection.setLocalDescription(answer)
            earlier = self._connections.get(name)
            self._connections[name] = connection
        except _BAD as error:
            raise ValueError(f"the offer can't be taken ({type(error).__name__})") from None
        finally:
            if self._connections.get(name) is not connection:
                await connection.close()
        if earlier is not None:
            await earlier.close()
        local = connection.localDescription
        return {"sdp": local.sdp, "type": local.type}

    async def close(self) -> None:
        """Ends all connections."""
        for name in list(self._connections):
            await self._end(name)
        for task in tuple(self._reading):
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading, timeout=5)

    async def _read(
        self, name: str, connection: RTCPeerConnection, track: Any, pushed: Pushed, found: Open
    ) -> None:
        try:
            while pushed.feed.state != "ended":
                async with asyncio.timeout(self.wait):
                    frame = await track.recv()
                found.touch()
                pushed.add(frame.to_image)
        except (MediaStreamError, TimeoutError):
            if self._connections.get(name) is connection:  # else another has taken its place
                pushed.feed.put(Notice("lost", "the browser's camera ended"))
        finally:
            if self._connections.get(name) is connection:
                del self._connections[name]
            await connection.close()

    async def _hear(self, track: Any, ears: Ears) -> None:
        resampler = AudioResampler(format="flt", layout="mono", rate=RATE)
        with contextlib.suppress(MediaStreamError):
            while True:
                for part in resampler.resample(await track.recv()):
                    ears.add(part.to_ndarray()[0])

    async def _end(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            await connection.close()


def only_from(sdp: str, remote: str, own: Collection[str] = ()) -> str:
    """A description without the candidates of other addresses than `remote`; one on this machine
    (loopback) has any of the machine's `own`, or a name that only its own network knows. What can't
    be read as a candidate is left out."""
    here = is_loopback(remote)
    lines = []
    for line in sdp.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "a=end-of-candidates":  # the checks may show more
            continue
        if name == "a=candidate":
            parts = value.split()  # as aiortc does, so that both see the same address
            address = parts[4] if len(parts) > 4 else ""
            known = address == remote or (here and (address in own or address.endswith(".local")))
            if not known:
                continue
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"
