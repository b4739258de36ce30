"""Merges layers into one value for each setting; keeps what it overrides. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.runtime.drivers import DRIVERS
from azpgauth.runtime.redacted import masked
from azpgauth.server.tls import MODES
from azpgauth.settings.families import counted
from azpgauth.settings.models.credential import KINDS, TOKENLESS, fields_of
from azpgauth.settings.models.nearness import is_this_machine
from azpgauth.settings.models.secret import SECRETS
from azpgauth.settings.sources.conventions import hosts_in
from azpgauth.settings.sources.layers import Dropped, Layer, Origin, Value
from azpgauth.settings.sources.placeholders import placeholder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from azpgauth.settings.sources.conventions import Family
    from azpgauth.settings.sources.layers import Key

__all__ = ["Merged", "merge"]

_KIND = ("credential", "kind")
_MODE = ("server", "sslmode")
_HOST = ("server", "host")


@dataclass
class Merged:
    """What the layers come to.

    Attributes:
        values: For each setting its values by rank: the first one holds, the others are shadowed.
        dropped: What was set aside.
        counting: The families of other tools that count.
        problems: What is wrong with the layers, and between them.
        unreadable: Whether there may be more that could not be read.
    """

    values: dict[Key, list[Value]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    counting: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    unreadable: bool = False

    def said(self, key: Key, otherwise: str = "") -> str:
        """What is said of a setting so far, as text."""
        return str(self.values[key][0].raw) if key in self.values else otherwise


def merge(
    layers: Sequence[Layer],
    families: Sequence[Family] = (),
    identity: Mapping[str, Value] | None = None,
) -> Merged:
    """Put layers together.

    Args:
        layers: Our own, the highest first.
        families: What other tools set; below all of ours.
        identity: Variables of azure-identity's own.
    """
    found = counted(layers, families)
    merged = Merged(counting=tuple(found.names), unreadable=found.unreadable)
    merged.problems += [each for layer in layers for each in layer.problems] + found.problems
    merged.unreadable |= any(layer.unreadable for layer in layers)
    rank, kind = _kind([*layers, *found.layers])
    for number, layer in enumerate([*layers, *found.layers]):
        foreign = number >= len(layers)
        for key, value in layer.values.items():
            if (
                key[0] == "credential"
                and (number > rank or foreign)
                and key[1] not in fields_of(kind)
            ):
                reason = f"is not for kind {masked(kind)}"
                if foreign and _is_password_for_token(merged, key, value, kind, layers):
                    continue
                merged.dropped.append(Dropped(key, value, reason))
            elif not (foreign and _dealt_with(merged, key, value, kind)):
                merged.values.setdefault(key, []).append(value)
    merged.dropped += found.aside
    _take_client_id(merged, kind, identity or {})
    merged.problems += _left_in(merged.values)
    return merged


def _kind(layers: Sequence[Layer]) -> tuple[int, str]:
    """The credential's kind, and which layer names it: the highest that does.

    So one file for production and one variable on a laptop suffice: what lower layers say for
    another kind is set aside. In that layer, and above it, a field of another kind is a mistake.
    """
    for rank, layer in enumerate(layers):
        if _KIND in layer.values:
            return rank, str(layer.values[_KIND].raw)
    return len(layers), "default"


def _is_password_for_token(
    merged: Merged, key: Key, value: Value, kind: str, layers: Sequence[Layer]
) -> bool:
    """Whether a server's family has a password that no token needs; then that is a mistake."""
    # A kind that could not be read, or that there is not, is not known: it contradicts nothing.
    known = kind in KINDS and not any(layer.unreadable for layer in layers)
    if key != ("credential", "password") or not known or kind in TOKENLESS:
        return False
    if placeholder(str(value.raw), whole=True):
        merged.values.setdefault(key, []).append(value)  # it is told below what is wrong with it
        return True
    reason = f"is a password beside credential.kind {masked(kind)}, which signs in with a token"
    action = "remove the password there, or set {credential.kind} to password to use it"
    merged.problems.append(Problem("credential.password", str(value.origin), reason, action))
    return True


def _dealt_with(merged: Merged, key: Key, value: Value, kind: str) -> bool:
    """Whether what another tool set is no ordinary value: then it is put where it belongs here."""
    if key == _MODE:
        _put_mode(merged, value, kind)
        return True
    if key == ("driver", "dialect"):
        driver = merged.said(("driver", "name"), "psycopg")
        if driver not in DRIVERS or str(value.raw) not in DRIVERS[driver].dialects:
            reason = f"driver.name {masked(driver)} does not connect by way of it"
            merged.dropped.append(Dropped(key, value, reason))
            return True
    return False


def _put_mode(merged: Merged, value: Value, kind: str) -> None:
    mode = str(value.raw)
    if mode not in MODES:
        if placeholder(mode):
            merged.values.setdefault(_MODE, []).append(value)
            return
        reason, action = "is not an sslmode", f"use one of {', '.join(reversed(MODES))}"
        merged.problems.append(
            Problem("server.sslmode", str(value.origin), reason, action, repr(masked(mode)))
        )
        return
    there = merged.values.get(_MODE)
    near = kind in TOKENLESS and all(map(is_this_machine, _places(merged)))
    if not there and near:
        merged.values[_MODE] = [value]
        return
    ours = merged.said(_MODE, "verify-full")
    if ours not in MODES or MODES.index(mode) <= MODES.index(ours):
        why = f"does not raise {masked(ours)}, and what other tools set cannot lower it"
        if ours in MODES and mode == ours and there:
            there.append(value)
        else:
            merged.dropped.append(Dropped(_MODE, value, why))
    else:  # above ours: it is the one rule in which the lower rank wins
        merged.values[_MODE] = [value, *(there or ())]


def _places(merged: Merged) -> tuple[str, ...]:
    """Where the connections lead: hosts, and addresses in their place."""
    keys = (_HOST, ("server", "hostaddr"))
    return tuple(
        place
        for key in keys
        if key in merged.values
        for place in hosts_in(merged.values[key][0].raw)
    )


_CLAIMED = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
)
"""Beside one of these, AZURE_CLIENT_ID is a service principal's or a workload's."""


def _take_client_id(merged: Merged, kind: str, identity: Mapping[str, Value]) -> None:
    """AZURE_CLIENT_ID names the managed identity, as it does under DefaultAzureCredential.

    ManagedIdentityCredential by itself does not look at it: Azure/azure-sdk-for-python#36365.
    """
    value = identity.get("AZURE_CLIENT_ID")
    named = [("credential", name) in merged.values for name in _NAMING]
    if kind != "managed-identity" or value is None or any(named):
        return
    if not any(str(identity[name].raw) for name in _CLAIMED if name in identity):
        origin = Origin("convention", str(value.origin), value.origin.name)
        merged.values["credential", "client_id"] = [Value(value.raw, origin)]


_NAMING = ("client_id", "object_id", "resource_id")
"""What names a managed identity."""


def _left_in(values: Mapping[Key, Sequence[Value]]) -> list[Problem]:
    """The placeholders that are left in what holds."""
    problems = []
    for (section, name), (first, *_) in values.items():
        secret = section == "credential" and name in SECRETS
        given = first.raw if isinstance(first.raw, (list, tuple)) else [first.raw]
        for text in given:
            found = placeholder(text, whole=secret) if isinstance(text, str) else None
            if found is not None:
                problems.append(Problem(f"{section}.{name}", str(first.origin), *found))
                break
    return problems
