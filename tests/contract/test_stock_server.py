"""Kinds password and none on a stock PostgreSQL without TLS, over TCP and a socket."""

import socket
import threading
from contextlib import suppress

import pytest

from azpgauth import ConnectError, SettingsError
from azpgauth.sandbox.postgres.server import Server, new_folder

WHO = {"AZPG_DATABASE_NAME": "postgres", "AZPG_DATABASE_USER": "postgres"}
PASSWORD = {"AZPG_CREDENTIAL_KIND": "password", "AZPG_CREDENTIAL_PASSWORD": "pw"}
TLS = "select count(*) from pg_stat_ssl where pid = pg_backend_pid() and ssl"


class Relay:
    """Leads from a TCP port of this machine to a socket, as a server's own port would."""

    def __init__(self, path):
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                conn, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[conn], daemon=True).start()

    def _serve(self, conn):
        with conn, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            back = threading.Thread(target=self._copy, args=(server, conn), daemon=True)
            back.start()
            self._copy(conn, server)
            back.join()

    def _copy(self, source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def stock():
    server = Server(new_folder())
    try:
        server.start()
        server.port = 5432
        relay = Relay(server.socket)
        yield server, relay
        relay.close()
    finally:
        server.stop()


@pytest.fixture
def said(stock, monkeypatch):
    _, relay = stock

    def said(variables):
        for name, value in {**WHO, "AZPG_CREDENTIAL_KIND": "none", **variables}.items():
            monkeypatch.setenv(name, value.replace("PORT", str(relay.port)))

    return said


def url(mode=""):
    return f"postgresql://postgres:pw@localhost:PORT/postgres{mode}"


@pytest.mark.parametrize(
    "variables",
    [
        {"AZPG_SERVER_HOST": "127.0.0.1", "AZPG_SERVER_PORT": "PORT"},
        {"AZPG_SERVER_HOST": "localhost", "AZPG_SERVER_PORT": "PORT", **PASSWORD},
        {
            "AZPG_SERVER_HOST": "localhost",
            "AZPG_SERVER_PORT": "PORT",
            "AZPG_SERVER_SSLMODE": "allow",
        },
        {"AZPG_CREDENTIAL_KIND": "password", "DATABASE_URL": url("?sslmode=disable")},
        {"AZPG_CREDENTIAL_KIND": "password", "DATABASE_URL": url()},
        {"PGHOST": "localhost", "PGPORT": "PORT", "PGSSLMODE": "prefer"},
        {"POSTGRES_HOST": "localhost", "POSTGRES_PORT": "PORT", "POSTGRES_SSL": "false"},
    ],
    ids=lambda variables: " ".join(f"{k}={v}" for k, v in variables.items())[:60],
)
def test_this_machine_without_tls(kit, said, variables):
    said(variables)
    with kit.pool() as pool:
        assert kit.row(pool, TLS) == (0,)


def test_a_socket(kit, said, stock):
    server, _ = stock
    said({"AZPG_SERVER_HOST": server.socket.rpartition("/")[0]})
    with kit.pool() as pool:
        assert kit.row(pool, "select inet_server_addr() is null") == (True,)


def test_a_mode_that_asks_for_tls_still_does(kit, said):
    said({"PGHOST": "localhost", "PGPORT": "PORT", "PGSSLMODE": "require"})
    with pytest.raises(ConnectError, match="no TLS") as caught, kit.pool():
        pass
    assert "AZPG_SERVER_SSLMODE" in caught.value.remedy


@pytest.mark.parametrize(
    "host",
    ["shop.postgres.database.azure.com", "db.example.com", "8.8.8.8", "localhost,db.example.com"],
)
@pytest.mark.parametrize("mode", ["prefer", "allow", "disable"])
def test_beyond_ones_own_networks_no_weaker_mode_is_taken(kit, said, host, mode):
    said({"AZPG_SERVER_HOST": host, "AZPG_SERVER_SSLMODE": mode})
    with pytest.raises(SettingsError, match=r"server\.sslmode"):
        kit.open()
