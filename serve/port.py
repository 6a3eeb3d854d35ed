"""Whether a port can be listened on, asked before anything that takes long is begun."""

from __future__ import annotations

import socket


def check_port(host: str, port: int) -> None:
    """Raises `OSError` where `port` of `host` can't be listened on; 0, any free one, always can."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections that have just ended don't hold the port; one that listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
