"""Where a server listens: whether a port is free, asked before anything that takes long is begun,
and what a host stands for."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


def check_port(host: str, port: int) -> None:
    """Raises `OSError` where `port` of `host` can't be listened on; 0, any free one, always can."""
    family, kind, protocol, _, address = _addresses(host, port)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections that have just ended don't hold the port; one that listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def is_all(host: str) -> bool:
    """Whether a host stands for all addresses of this machine, however it is written: 0.0.0.0, 0,
    ::, ::0 ... One that is no address doesn't."""
    try:
        found = [ipaddress.ip_address(each[4][0]) for each in _addresses(host, 0)]
    except OSError:
        return False
    return any((getattr(each, "ipv4_mapped", None) or each).is_unspecified for each in found)


def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    """What a host and a port stand for. Raises `OSError` for a host that is no name."""
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        return list(socket.getaddrinfo(host, port, type=kind, flags=flags))
    except UnicodeError:  # a label of no characters, or of too many
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name") from None
