"""Kind none sends no password: not one of the settings', nor one that a driver finds elsewhere."""

import base64
import re
import socket
import struct
import threading
from pathlib import Path

import pytest
from kits import KITS, Loop

from azpgauth import ConnectError, SettingsError

SECRET = "found-elsewhere"


class Asking:
    """A server without TLS that asks for a password, and keeps what it hears in its place.

    Args:
        method: `password`, `md5` or `scram-sha-256`.
    """

    def __init__(self, method):
        self.method = method
        self.heard = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self):
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with conn, conn.makefile("rb") as stream:
                conn.settimeout(5)
                try:
                    self._talk(conn, stream)
                except (OSError, struct.error):
                    continue  # it hung up

    def _talk(self, conn, stream):
        while True:
            size, code = struct.unpack("!ii", stream.read(8))
            stream.read(size - 8)
            if code == 196608:
                break
            conn.sendall(b"N")
        self.connections += 1
        ask = {
            "password": struct.pack("!i", 3),
            "md5": struct.pack("!i", 5) + b"salt",
            "scram-sha-256": struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0",
        }[self.method]
        conn.sendall(_message(b"R", ask))
        first = self._answer(stream)
        if self.method == "scram-sha-256":
            nonce = re.search(rb"r=([^,]+)", first)[1] + b"more"
            salt = base64.b64encode(b"salt")
            conn.sendall(
                _message(b"R", struct.pack("!i", 11) + b"r=%b,s=%b,i=4096" % (nonce, salt))
            )
            self._answer(stream)
        conn.sendall(_message(b"E", b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"))

    def _answer(self, stream):
        kind, size = struct.unpack("!ci", stream.read(5))
        body = stream.read(size - 4)
        # What begins SCRAM has a nonce in it, and no proof of a password.
        if not body.startswith(b"SCRAM-SHA-256\0"):
            self.heard.append((kind, body))
        return body


def _message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def in_variable(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)


def in_named_file(monkeypatch):
    _write(Path("passwords"))
    monkeypatch.setenv("PGPASSFILE", str(Path("passwords").absolute()))


def in_home(monkeypatch):
    home = Path("home").absolute()
    (home / "AppData/postgresql").mkdir(parents=True)
    for name in (".pgpass", "AppData/postgresql/pgpass.conf"):
        _write(home / name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("APPDATA", str(home / "AppData"))


def everywhere(monkeypatch):
    for put in (in_variable, in_named_file, in_home):
        put(monkeypatch)


def _write(path):
    path.write_text(f"*:*:*:*:{SECRET}\n")
    path.chmod(0o600)


@pytest.fixture(params=KITS, ids=str)
def kit(request):
    if not request.param.is_async:
        yield request.param
        return
    with Loop() as loop:
        request.param.loop = loop
        yield request.param


def keywords(kit, port, **server):
    return {
        "driver": kit.settings,
        "server": {"host": "127.0.0.1", "port": port, "sslmode": "prefer", **server},
        "database": {"name": "shop", "user": "app"},
        "credential": {"kind": "none"},
    }


@pytest.mark.parametrize("mode", ["prefer", "disable"])
@pytest.mark.parametrize("method", ["password", "md5", "scram-sha-256"])
def test_no_password_is_sent(kit, method, mode, monkeypatch):
    everywhere(monkeypatch)
    with Asking(method) as server:
        told = keywords(kit, server.port, sslmode=mode)
        for use in (kit.open, kit.one):
            with pytest.raises(ConnectError, match="wants a password, and none was sent"):
                use(**told)
    assert server.connections == 2, "told at once"
    assert server.heard == []


@pytest.mark.parametrize("put", [in_variable, in_named_file, in_home])
def test_wherever_a_driver_would_find_one(kit, put, monkeypatch):
    with Asking("password") as server:
        put(monkeypatch)
        with pytest.raises(ConnectError, match="wants a password, and none was sent"):
            kit.one(**keywords(kit, server.port))
    assert server.heard == []


def test_a_password_of_the_settings_comes_before_what_is_found(kit, monkeypatch):
    everywhere(monkeypatch)
    with Asking("password") as server:
        told = {
            **keywords(kit, server.port),
            "credential": {"kind": "password", "password": "mine"},
        }
        with pytest.raises(ConnectError, match="password authentication failed"):
            kit.one(**told)
    assert {body for _, body in server.heard} == {b"mine\0"}


@pytest.mark.parametrize("name", ["password", "passfile"])
def test_native_brings_no_password_in(kit, name):
    native = {name: SECRET}
    if kit.dialect:
        native = {"connect_args": native}
    with pytest.raises(SettingsError, match=name) as raised:
        kit.one(**keywords(kit, 1), native=native)
    assert SECRET not in str(raised.value)
