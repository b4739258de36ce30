"""Says when a dead peer is given up: probes while a query waits, and a limit while sending.

Both are needed: keepalives alone end a waiting query, `TCP_USER_TIMEOUT` alone a send.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Keepalives"]


@dataclass(frozen=True)
class Keepalives:
    """The limits of one connection; 0 leaves one to the system.

    Attributes:
        idle: Seconds without a word after which the first probe is sent.
        interval: Seconds between probes.
        count: Unanswered probes after which the peer is dead.
        user_timeout: Milliseconds that what was sent may stay unacknowledged.
    """

    idle: int = 15
    interval: int = 5
    count: int = 3
    user_timeout: int = 30_000

    def libpq(self) -> dict[str, int]:
        """The keywords for libpq, which fails on a probe after 0 seconds."""
        found = {
            "keepalives_idle": self.idle,
            "keepalives_interval": self.interval,
            "keepalives_count": self.count,
            "tcp_user_timeout": self.user_timeout,
        }
        return {name: value for name, value in found.items() if value}

    def apply(self, sock: socket.socket) -> None:
        """Set them on a socket, as libpq does; what the system lacks is left alone.

        Args:
            sock: The socket; one in a folder has none of them.
        """
        if sock.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        options = (
            ("TCP_KEEPIDLE", self.idle),
            ("TCP_KEEPALIVE", self.idle),  # its name on macOS
            ("TCP_KEEPINTVL", self.interval),
            ("TCP_KEEPCNT", self.count),
            ("TCP_USER_TIMEOUT", self.user_timeout),
        )
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if value and (option := getattr(socket, name, None)) is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
