"""Pictures over WebRTC, from a peer of the same library in this process."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from serve.client import Client, ServerError
from serve.server import Server
from serve.webrtc import WebRtc, only_from
from tests.serve.lived import Scripted
from tests.serve.running import running, url


class Camera(VideoStreamTrack):
    """Ten grey pictures a second."""

    async def recv(self) -> VideoFrame:
        await asyncio.sleep(0.1)
        self.count = getattr(self, "count", 0) + 1
        frame = VideoFrame.from_ndarray(np.full((48, 64, 3), 120, np.uint8), format="rgb24")
        frame.pts, frame.time_base = self.count * 9000, Fraction(1, 90_000)
        return frame


async def connected(session: Any, *more: Any) -> RTCPeerConnection:
    """A peer with a camera, and more tracks."""
    peer = RTCPeerConnection()
    for track in (Camera(), *more):
        peer.addTrack(track)
    await peer.setLocalDescription(await peer.createOffer())
    local = peer.localDescription
    told = {"sdp": local.sdp, "type": local.type}
    answer = await session.client.call("POST", f"{session.place}/offer", json=told)
    await peer.setRemoteDescription(RTCSessionDescription(**answer))
    return peer


def test_a_camera_is_watched_second_by_second(tmp_path: Path) -> None:
    async def main() -> None:
        webrtc, model = WebRtc(), Scripted()
        async with running(tmp_path, model) as server, Client(url(server)) as client:
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            peer = await connected(session)
            async with asyncio.timeout(20):
                while len(told := [e for e in await session.after(0) if e["kind"] == "step"]) < 3:
                    await asyncio.sleep(0.1)
            assert [e["second"] for e in told][:3] == [0, 1, 2]
            (stream,) = model.streams.values()
            red, green, blue = stream.turns[-1].frames[0].getpixel((10, 10))
            assert max(abs(c - 120) for c in (red, green, blue)) < 12
            await session.close()
            await peer.close()
        await webrtc.close()
        assert not webrtc._connections

    asyncio.run(main())


def test_what_is_no_offer_is_refused_and_no_other_address_is_called(tmp_path: Path) -> None:
    async def main() -> None:
        webrtc = WebRtc()
        async with running(tmp_path) as server, Client(url(server)) as client:
            assert isinstance(server, Server)
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"
            unknown = f"{head}m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=fmtp:31 x=1\r\n"
            for sdp in ("", "v=0", f"{head}m=video x", unknown, "\0" * 99):
                told = {"sdp": sdp, "type": "offer"}
                with pytest.raises(ServerError) as refused:
                    await client.call("POST", f"{session.place}/offer", json=told)
                assert refused.value.status == 400
            await session.close()
        await webrtc.close()

    asyncio.run(main())
    lines = [
        "v=0",
        "a=candidate:1 1 udp 2130706431 10.0.0.7 51000 typ host",
        "a=candidate:2 1 udp 2130706431 169.254.169.254 80 typ host",
        "a=candidate:3 1 udp 2130706431 cafe.local 51000 typ host",
    ]
    sdp = "\r\n".join(lines)
    assert only_from(sdp, "10.0.0.7").split("\r\n") == [*lines[:2], ""]
    assert only_from(sdp, "127.0.0.1").split("\r\n") == [lines[0], lines[3], ""]
    assert only_from(sdp, "127.0.0.1", ["10.0.0.7"]).split("\r\n") == [*lines[:2], lines[3], ""]


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 udp  2130706431 169.254.169.254 80 typ host",
        "a=candidate:1 +1 udp 2130706431 169.254.169.254 80 typ host",
        "a=candidate:1 1 udp 2_130 169.254.169.254 80 typ host",
        "a=candidate: 1 1 udp 10.0.0.7 169.254.169.254 80 typ host",
        "a=candidate:1\t1 udp 2130706431 169.254.169.254 80 typ host",
        " a=candidate:1 1 udp 2130706431 169.254.169.254 80 typ host",
        "a=candidate:1 1 udp 2130706431",
        "a=candidate",
    ],
)
def test_a_candidate_that_is_written_oddly_passes_no_more_than_another(line: str) -> None:
    for remote in ("10.0.0.7", "127.0.0.1"):
        assert only_from(f"v=0\r\n{line}\r\nm=video", remote, ["10.0.0.8"]) == "v=0\r\nm=video\r\n"
    allowed = line.replace("169.254.169.254", "10.0.0.9")
    if allowed != line:
        assert allowed in only_from(allowed, "10.0.0.9")


async def told(session: Any, state: str, after: int = 0) -> int:
    """The number of the event that tells of this state of the source, once there is one."""
    async with asyncio.timeout(20):
        while True:
            for event in await session.after(after, wait=5):
                if event["kind"] == "source" and event["state"] == state:
                    return int(event["seq"])


def test_a_camera_that_was_lost_is_told_of_when_it_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        webrtc = WebRtc(wait=3.0)
        async with running(tmp_path) as server, Client(url(server)) as client:
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            first = await connected(session)
            live = await told(session, "live")
            await first.close()
            lost = await told(session, "lost", live)
            second = await connected(session)
            await told(session, "live", lost)
            # A third takes the place of one that is live: nothing was lost.
            third = await connected(session)
            await second.close()
            await asyncio.sleep(0.5)
            assert (await session.state())["source"]["state"] == "live"
            await session.close()
            await third.close()
        await webrtc.close()

    asyncio.run(main())


def test_offers_at_once_end_in_one_connection_and_a_bad_one_ends_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RTCPeerConnection] = []

    class Recorded(RTCPeerConnection):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    async def main() -> None:
        webrtc = WebRtc()
        async with running(tmp_path) as server, Client(url(server)) as client:
            server._offer = webrtc.offer
            session = await client.open({"kind": "webrtc"})
            monkeypatch.setattr("serve.webrtc.RTCPeerConnection", Recorded)
            peers = await asyncio.gather(*(connected(session) for _ in range(3)))
            bad = {"sdp": "v=0\r\nm=video x", "type": "offer"}
            with pytest.raises(ServerError):
                await client.call("POST", f"{session.place}/offer", json=bad)
            async with asyncio.timeout(10):
                while len(open_ := [c for c in made if c.connectionState != "closed"]) > 1:
                    await asyncio.sleep(0.02)
            assert len(made) == 4 and open_ == list(webrtc._connections.values())
            await told(session, "live")
            await session.close()
            for peer in peers:
                await peer.close()
        await webrtc.close()

    asyncio.run(main())
