"""Says which families of other tools count: those of the server that is meant. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpgauth.runtime.redacted import masked
from azpgauth.settings.sources.conventions import HOST, hosts_in
from azpgauth.settings.sources.layers import Dropped, Layer, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpgauth.errors import Problem
    from azpgauth.settings.sources.conventions import Family

__all__ = ["Counted", "counted"]

_PORT = ("server", "port")


@dataclass
class Counted:
    """What families come to.

    Attributes:
        layers: Those that count, the first counts most.
        names: Their names.
        aside: What was set aside, with why.
        problems: What is wrong with those that could not be read and are needed.
        unreadable: Whether there may be more in one of these.
    """

    layers: list[Layer] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    aside: list[Dropped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: bool = False


def counted(ours: Sequence[Layer], families: Sequence[Family]) -> Counted:
    """Which of the families count, each as a whole or not at all.

    A family describes one server. What it says of another one, such as its port or its password, is
    wrong here: it counts where its host is the one in force, whether that is its own or is said
    above it.

    Args:
        ours: Our own layers, the highest first.
        families: What others say, the first counts most.
    """
    found = Counted()
    said = [layer.values[HOST].raw for layer in ours if HOST in layer.values]
    said += [each.values[HOST].raw for each in families if each.hosts and not each.another]
    force = hosts_in(said[0]) if said else ()
    for family in families:
        reason = _why_not(family, force)
        if reason is not None:
            values = [Dropped(key, value, reason) for key, value in family.values.items()]
            others = [Dropped(each.key, each.value, reason) for each in family.others]
            found.aside += [*values, *others, *family.texts]
            if not force:
                found.problems += family.problems
                found.unreadable |= family.unreadable
            continue
        values_by_key = {HOST: family.values[HOST], **family.values}  # by it others are judged
        found.aside += [*family.others, *family.texts, *_ports_in_order(values_by_key, force)]
        found.layers.append(Layer(values_by_key))
        found.names.append(family.name)
    return found


def _why_not(family: Family, force: tuple[str, ...]) -> str | None:
    """Why a family does not count; None if it does."""
    if family.another:
        return f"{family.name} is of another database, {masked(family.another)}"
    if not family.hosts:
        return f"{family.name} names no host"
    if set(family.hosts) != set(force):
        theirs, ours = (masked(",".join(each)) for each in (family.hosts, force))
        return f"{family.name} is of another server: its host is {theirs}, and {ours} is meant"
    return None


def _ports_in_order(values: dict[Any, Value], force: tuple[str, ...]) -> list[Dropped]:
    """Put a family's ports in the order of the hosts in force; what cannot be is set aside."""
    hosts, port = hosts_in(values[HOST].raw), values.get(_PORT)
    ports = [each.strip() for each in str(port.raw).split(",")] if port else []
    if port is None or len(ports) < 2 or hosts == force:
        return []
    if len(ports) == len(hosts) == len(force) == len(set(force)):
        by_host = dict(zip(hosts, ports, strict=True))
        values[_PORT] = Value(",".join(by_host[host] for host in force), port.origin)
        return []
    del values[_PORT]
    return [Dropped(_PORT, port, "its hosts are listed otherwise than server.host lists them")]
