"""Judges how near a host is: on this machine, on a private network, or anywhere. Pure."""

from __future__ import annotations

import ipaddress

from azpgauth.server.clouds import cloud_of

__all__ = ["is_address", "is_nearby", "is_this_machine"]


def is_address(name: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_this_machine(host: str) -> bool:
    """Whether what is sent there does not leave the machine: loopback, or a socket's folder.

    Example:
        >>> is_this_machine("127.0.0.1"), is_this_machine("/run/postgresql"), is_this_machine("db")
        (True, True, False)
    """
    if host.startswith("/") or host.lower().rstrip(".") == "localhost":
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def is_nearby(host: str) -> bool:
    """Whether it is on a network of one's own, as containers' names and private addresses are.

    Example:
        >>> is_nearby("db"), is_nearby("10.0.0.5"), is_nearby("db.example.com")
        (True, True, False)
    """
    if is_this_machine(host) or host.lower() == "host.docker.internal":
        return True
    if is_address(host):
        address = ipaddress.ip_address(host)
        return address.is_private or address.is_link_local
    return "." not in host and ":" not in host and cloud_of(host) is None
