"""A drop-in class gives its token to nobody whom its caller did not name.

Each way in which libpq and asyncpg can be led to a server is tried beside one that listens in their
default folders and on TCP, declines TLS and asks for a cleartext password.
"""

import asyncio
import contextlib
import os
import queue
import sys
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy
from azure.identity import ManagedIdentityCredential
from psycopg import pq
from rogue import Rogue
from sqlalchemy.ext.asyncio import create_async_engine

from azpgauth.errors import EntraConnectionValueError
from azpgauth.psycopg2 import EntraConnection as Psycopg2EntraConnection
from azpgauth.psycopg3 import AsyncEntraConnection, EntraConnection
from azpgauth.sqlalchemy import (
    create_asyncpg_engine,
    enable_entra_authentication,
    enable_entra_authentication_async,
)
from azpgauth.testing import FakeCredential

WHO = "select current_user::text"
FOLDERS = {Path("/tmp"), Path("/run/postgresql"), Path("/var/run/postgresql")}


@pytest.fixture
def rogue():
    found = Rogue(FOLDERS)
    with closing(found):
        yield found


def as_string(keywords):
    quoted = {k: str(v).replace("\\", "\\\\").replace("'", "\\'") for k, v in keywords.items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def with_psycopg(credential, string, keywords):
    with EntraConnection.connect(string, credential=credential, **keywords) as conn:
        return conn.execute(WHO).fetchone()[0]


def with_psycopg_pool(credential, string, keywords):
    ended = queue.Queue()

    class Reporting(EntraConnection):
        @classmethod
        def connect(cls, *args, **kwargs):
            try:
                conn = super().connect(*args, **kwargs)
            except EntraConnectionValueError as exc:
                ended.put(exc)
                raise
            ended.put(None)
            return conn

    pool = psycopg_pool.ConnectionPool(
        string,
        connection_class=Reporting,
        kwargs={"credential": credential, **keywords},
        min_size=1,
        open=False,
    )
    with closing(pool):
        pool.open()
        error = ended.get(timeout=20)
        if error is not None:
            raise error
        with pool.connection() as conn:
            return conn.execute(WHO).fetchone()[0]


def with_psycopg_async(credential, string, keywords):
    async def main():
        conn = await AsyncEntraConnection.connect(string, credential=credential, **keywords)
        async with conn:
            return (await (await conn.execute(WHO)).fetchone())[0]

    return asyncio.run(main())


def with_psycopg2(credential, string, keywords):
    conn = Psycopg2EntraConnection(string, credential=credential, **keywords)
    with closing(conn), conn.cursor() as cursor:
        cursor.execute(WHO)
        return cursor.fetchone()[0]


def with_psycopg2_factory(credential, string, keywords):
    factory = partial(Psycopg2EntraConnection, credential=credential)
    if not string and not keywords:
        string = " "  # psycopg2 itself wants something
    pool = psycopg2.pool.SimpleConnectionPool(0, 1, string, connection_factory=factory, **keywords)
    try:
        conn = pool.getconn()
        with conn.cursor() as cursor:
            cursor.execute(WHO)
            return cursor.fetchone()[0]
    finally:
        pool.closeall()


def with_engine(dialect):
    def use(credential, string, keywords):
        url, arguments = for_engine(dialect, string, keywords)
        engine = sqlalchemy.create_engine(url, connect_args={"credential": credential, **arguments})
        enable_entra_authentication(engine)
        with closing_engine(engine), engine.connect() as conn:
            return conn.scalar(sqlalchemy.text(WHO))

    return use


@contextlib.contextmanager
def closing_engine(engine):
    try:
        yield
    finally:
        engine.dispose()


def with_async_engine(dialect):
    def use(credential, string, keywords):
        async def main():
            url, arguments = for_engine(dialect, string, keywords)
            if dialect == "asyncpg":
                engine = create_asyncpg_engine(url, credential, connect_args=arguments)
            else:
                engine = create_async_engine(
                    url, connect_args={"credential": credential, **arguments}
                )
                enable_entra_authentication_async(engine)
            try:
                async with engine.connect() as conn:
                    return await conn.scalar(sqlalchemy.text(WHO))
            finally:
                await engine.dispose()
                await asyncio.sleep(0.05)  # what asyncpg has closed takes a moment to be gone

        return asyncio.run(main())

    return use


def for_engine(dialect, string, keywords):
    """URL and arguments of an engine: a URL is SQLAlchemy's, another string the driver's own."""
    if string.startswith("postgresql:"):
        return string.replace("postgresql:", f"postgresql+{dialect}:"), keywords
    arguments = dict(keywords)
    if dialect == "asyncpg":
        if string.strip():
            pytest.skip("asyncpg knows no conninfo")
        if "dbname" in arguments:
            arguments["database"] = arguments.pop("dbname")
    elif string.strip():
        arguments["dsn" if dialect == "psycopg2" else "conninfo"] = string
        return f"postgresql+{dialect}:///?connect_timeout=10", arguments
    return f"postgresql+{dialect}://", arguments


USES = {
    "psycopg": with_psycopg,
    "psycopg-pool": with_psycopg_pool,
    "psycopg-async": with_psycopg_async,
    "psycopg2": with_psycopg2,
    "psycopg2-factory": with_psycopg2_factory,
    "sqlalchemy-psycopg": with_engine("psycopg"),
    "sqlalchemy-psycopg2": with_engine("psycopg2"),
    "sqlalchemy-async-psycopg": with_async_engine("psycopg"),
    "sqlalchemy-async-asyncpg": with_async_engine("asyncpg"),
}


@dataclass
class Way:
    """How somebody could be led to a server that he did not name."""

    about: str
    keywords: dict = field(default_factory=dict)
    env: dict = field(default_factory=dict)
    url: str | None = None
    service: dict | None = None
    home: bool = False


SERVICE = {"host": "/tmp"}
WAYS = [
    Way("nothing"),
    Way("a database alone", {"dbname": "app"}),
    Way("a user alone", {"user": "sandbox-app"}),
    Way("an empty host", {"host": ""}),
    Way("a blank host", {"host": " "}),
    Way("a comma", {"host": ","}),
    Way("an empty place at the end", {"host": "localhost,"}),
    Way("an empty place at the start", {"host": ",localhost"}),
    Way("an empty place in the middle", {"host": "localhost,,localhost"}),
    Way("a folder", {"host": "/tmp"}),
    Way("another folder", {"host": "/var/run/postgresql"}),
    Way("a folder after a name", {"host": "localhost,/tmp"}),
    Way("a folder before a name", {"host": "/tmp,localhost"}),
    Way("an abstract socket", {"host": "@azpgauth"}),
    Way("hostaddr alone", {"hostaddr": "127.0.0.1"}),
    Way("several of hostaddr alone", {"hostaddr": "127.0.0.1,127.0.0.1"}),
    Way("hostaddr and an empty host", {"hostaddr": "127.0.0.1", "host": ""}),
    Way("a service", {"service": "rogue"}, service=SERVICE),
    Way("a service with an address", {"service": "rogue"}, service={"hostaddr": "127.0.0.1"}),
    Way("a service with a name", {"service": "rogue"}, service={"host": "127.0.0.1"}),
    Way(
        "a service beside a name",
        {"service": "rogue", "host": "localhost"},
        service={"hostaddr": "127.0.0.1", "sslmode": "disable"},
    ),
    Way("a service of the home folder", {"service": "rogue"}, service=SERVICE, home=True),
    Way("an empty service", {"service": ""}),
    Way("a conninfo in the database's name", {"dbname": "host=/tmp"}),
    Way("a URL in the database's name", {"dbname": "postgresql:///app?host=/tmp"}),
    Way("a host of the environment, empty", env={"PGHOST": ""}),
    Way("a blank in PGHOST", env={"PGHOST": " "}),
    Way("a comma in PGHOST", env={"PGHOST": ","}),
    Way("an empty place in PGHOST", env={"PGHOST": "localhost,"}),
    Way("an empty first place in PGHOST", env={"PGHOST": ",localhost"}),
    Way("a folder in PGHOST", env={"PGHOST": "/tmp"}),
    Way("a folder in PGHOST, after a name", env={"PGHOST": "localhost,/tmp"}),
    Way("an abstract socket in PGHOST", env={"PGHOST": "@azpgauth"}),
    Way("a folder in PGHOST, in brackets", env={"PGHOST": "[/tmp]"}),
    Way("an empty host over PGHOST", {"host": ""}, env={"PGHOST": "localhost"}),
    Way("PGHOSTADDR alone", env={"PGHOSTADDR": "127.0.0.1"}),
    Way("PGHOSTADDR and an empty PGHOST", env={"PGHOSTADDR": "127.0.0.1", "PGHOST": ""}),
    Way("PGSERVICE", env={"PGSERVICE": "rogue"}, service=SERVICE),
    Way("PGSERVICE of the home folder", env={"PGSERVICE": "rogue"}, service=SERVICE, home=True),
    Way(
        "PGSERVICE beside a name",
        {"host": "localhost"},
        env={"PGSERVICE": "rogue"},
        service={"hostaddr": "127.0.0.1", "sslmode": "disable"},
    ),
    Way(
        "PGSERVICE beside PGHOST",
        env={"PGSERVICE": "rogue", "PGHOST": "localhost"},
        service={"hostaddr": "127.0.0.1"},
    ),
    Way("PGSERVICEFILE alone", service=SERVICE),
    Way("PGDATABASE", env={"PGDATABASE": "host=/tmp"}),
    *(
        Way(f"{name} alone", env={name: value})
        for name, value in {
            "PGUSER": "sandbox-app",
            "PGSSLMODE": "verify-full",
            "PGSSLNEGOTIATION": "postgres",
            "PGSSLROOTCERT": "system",
            "PGREQUIRESSL": "1",
            "PGREQUIREPEER": "root",
            "PGGSSENCMODE": "prefer",
            "PGTARGETSESSIONATTRS": "any",
            "PGLOADBALANCEHOSTS": "random",
            "PGOPTIONS": "-c search_path=x",
            "PGAPPNAME": "host=/tmp",
        }.items()
    ),
    Way("a URL without a host", url="postgresql:///app"),
    Way("a URL with a user alone", url="postgresql://sandbox-app@/app"),
    Way("a URL with a folder", url="postgresql:///app?host=/tmp"),
    Way("a URL with a folder, encoded", url="postgresql:///app?host=%2Ftmp"),
    Way("a URL with an address alone", url="postgresql:///app?hostaddr=127.0.0.1"),
    Way("a URL with a service", url="postgresql:///app?service=rogue", service=SERVICE),
    Way("a URL with an empty host", url="postgresql:///app?host="),
    Way("a URL with an empty place", url="postgresql:///app?host=localhost,"),
    Way("a URL with a folder and a name", url="postgresql:///app?host=localhost,/tmp"),
]


def enter(way, rogue, monkeypatch, tmp_path):
    """Make a way's world; the strings and keywords in which it can be said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPORT", str(rogue.port))
    for name, value in way.env.items():
        monkeypatch.setenv(name, value)
    if way.service is not None:
        lines = ["[rogue]", *(f"{k}={v}" for k, v in way.service.items()), f"port={rogue.port}"]
        file = tmp_path / (".pg_service.conf" if way.home else "services.conf")
        file.write_text("\n".join(lines) + "\n")
        if not way.home:
            monkeypatch.setenv("PGSERVICEFILE", str(file))
    if way.url is not None:
        return [(way.url, {})]
    if not way.keywords:
        return [("", {})]
    return [("", way.keywords), (as_string(way.keywords), {})]


def test_there_are_ways_enough():
    assert len(WAYS) >= 60


@pytest.mark.parametrize("name", USES)
def test_nobody_unnamed_is_given_a_token(name, box, rogue, monkeypatch, tmp_path):
    credential = ManagedIdentityCredential()
    told = []
    for way in WAYS:
        with monkeypatch.context() as world:
            for string, keywords in enter(way, rogue, world, tmp_path):
                told += refusal(partial(USES[name], credential, string, keywords))
        assert rogue.heard == [], way.about
        assert box.authority.requests == [], way.about
    assert len(told) >= len(WAYS)
    assert all("host" in each for each in told)


def refusal(use):
    try:
        with pytest.raises((EntraConnectionValueError, sqlalchemy.exc.ArgumentError)) as caught:
            use()
    except pytest.skip.Exception:  # this driver knows no such string
        return []
    return [str(caught.value)]


@pytest.mark.parametrize("name", USES)
def test_the_one_named_is_connected_to(name, box, rogue, monkeypatch):
    """And nowhere else, though the environment says so."""
    if sys.platform != "linux":
        pytest.skip("a second address of this machine is there on Linux alone")
    rogue.also("127.0.0.2", box.gateway.port)
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.2")
    monkeypatch.setenv("PGSERVICEFILE", os.devnull)
    monkeypatch.setenv("PGDATABASE", "app")
    credential = ManagedIdentityCredential()
    use = partial(USES[name], credential)
    said = {"host": "localhost", "port": box.gateway.port, "dbname": "app"}
    assert use("", said) == "sandbox-app"
    assert use(f"postgresql://localhost:{box.gateway.port}/app", {}) == "sandbox-app"
    with contextlib.suppress(pytest.skip.Exception):
        assert use(as_string(said), {}) == "sandbox-app"
    monkeypatch.setenv("PGHOST", "localhost")
    monkeypatch.setenv("PGPORT", str(box.gateway.port))
    assert use("", {}) == "sandbox-app"
    assert rogue.heard == []
    assert box.gateway.passwords >= 3
    assert len(box.authority.requests) == 1


def test_a_name_and_its_address_by_the_caller(box, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    said = {"host": "localhost", "hostaddr": "127.0.0.1", "port": box.gateway.port, "dbname": "app"}
    credential = ManagedIdentityCredential()
    for name in ("psycopg", "psycopg-async", "psycopg2", "sqlalchemy-psycopg"):
        assert USES[name](credential, "", said) == "sandbox-app"
        before = box.gateway.passwords
        # The certificate is for the name: an address of another server would show.
        with pytest.raises(Exception, match="does not match host name"):
            USES[name](credential, "", {**said, "host": "other.invalid"})
        assert box.gateway.passwords == before


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("later", [None, "/tmp"])
def test_what_was_judged_is_connected_to(name, later, box, rogue, monkeypatch):
    """The environment may change while the token is fetched."""
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    monkeypatch.setenv("PGHOST", "localhost")
    monkeypatch.setenv("PGPORT", str(rogue.port))

    class Slow(FakeCredential):
        def get_token(self, *scopes, **options):
            if later is None:
                monkeypatch.delenv("PGHOST", raising=False)
            else:
                monkeypatch.setenv("PGHOST", later)
            return super().get_token(*scopes, **options)

    with pytest.raises(Exception):  # noqa: B017, PT011 - any driver's: no TLS there
        USES[name](Slow(), "", {"dbname": "app"})
    assert rogue.heard == []


def test_a_port_in_pghost_is_asyncpgs(box, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    monkeypatch.setenv("PGHOST", f"localhost:{box.gateway.port}")
    use = USES["sqlalchemy-async-asyncpg"]
    assert use(ManagedIdentityCredential(), "", {"dbname": "app"}) == "sandbox-app"


def test_a_string_for_asyncpg_is_refused(box, rogue, monkeypatch):
    monkeypatch.setenv("PGPORT", str(rogue.port))
    url = f"postgresql://localhost:{box.gateway.port}/app"
    for dsn in (url, "postgresql:///app", "postgresql://%2Ftmp/app"):
        with pytest.raises(EntraConnectionValueError, match="host, port and database"):
            USES["sqlalchemy-async-asyncpg"](ManagedIdentityCredential(), url, {"dsn": dsn})
    assert box.authority.requests == rogue.heard == []


def test_the_listener_hears_a_careless_client(rogue, monkeypatch):
    monkeypatch.setenv("PGPORT", str(rogue.port))
    monkeypatch.setenv("PGSSLMODE", "prefer")
    for said in ("hostaddr=127.0.0.1", "host=127.0.0.1", ""):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"{said} user=u dbname=d password=careless")
        if said:
            assert rogue.heard.pop() == (b"p", b"careless\0")
    folders = [
        option.compiled for option in pq.Conninfo.get_defaults() if option.keyword == b"host"
    ]
    if any(
        (Path(os.fsdecode(each or b"/tmp")) / f".s.PGSQL.{rogue.port}").exists() for each in folders
    ):
        assert rogue.heard == [(b"p", b"careless\0")]
