"""The drop-in classes, each against the sandbox, in the ways their users use them."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from importlib.metadata import metadata

import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy
from azure.identity import ManagedIdentityCredential
from leaks import leaked
from sqlalchemy.ext.asyncio import create_async_engine

from azpgauth.errors import (
    AzurePgEntraError,
    ConnectError,
    CredentialValueError,
    EntraConnectionValueError,
    UsernameExtractionError,
)
from azpgauth.identity.credential import source_of
from azpgauth.psycopg2 import EntraConnection as Psycopg2EntraConnection
from azpgauth.psycopg3 import AsyncEntraConnection, EntraConnection
from azpgauth.sandbox import Identity
from azpgauth.sqlalchemy import (
    create_asyncpg_engine,
    enable_entra_authentication,
    enable_entra_authentication_async,
)
from azpgauth.testing import FakeCredential

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
WHO = "select current_user::text, version from pg_stat_ssl where pid = pg_backend_pid()"


def dsn(box, **more):
    words = {"host": "localhost", "port": box.gateway.port, "dbname": "app", **more}
    return " ".join(f"{name}='{value}'" for name, value in words.items())


def url(box, dialect, **query):
    return sqlalchemy.URL.create(
        f"postgresql+{dialect}",
        username=query.pop("user", None),
        password=query.pop("password", None),
        host="localhost",
        port=box.gateway.port,
        database="app",
        query=query,
    )


def with_psycopg(box, credential, **more):
    with EntraConnection.connect(dsn(box, **more), credential=credential) as conn:
        return conn.execute(WHO).fetchone()


def with_psycopg_async(box, credential, **more):
    async def main():
        conn = await AsyncEntraConnection.connect(dsn(box, **more), credential=credential)
        async with conn:
            return await (await conn.execute(WHO)).fetchone()

    return asyncio.run(main())


def with_psycopg2(box, credential, **more):
    conn = Psycopg2EntraConnection(dsn(box, **more), credential=credential)
    with closing(conn), conn.cursor() as cursor:
        cursor.execute(WHO)
        return cursor.fetchone()


def with_engine(dialect):
    def use(box, credential, **more):
        engine = sqlalchemy.create_engine(
            url(box, dialect, **more), connect_args={"credential": credential}
        )
        enable_entra_authentication(engine)
        try:
            with engine.connect() as conn:
                return tuple(conn.execute(sqlalchemy.text(WHO)).one())
        finally:
            engine.dispose()

    return use


def with_async_engine(dialect):
    def use(box, credential, **more):
        async def main():
            if dialect == "asyncpg":
                engine = create_asyncpg_engine(url(box, dialect, **more), credential)
            else:
                engine = create_async_engine(
                    url(box, dialect, **more), connect_args={"credential": credential}
                )
                enable_entra_authentication_async(engine)
            try:
                async with engine.connect() as conn:
                    return tuple((await conn.execute(sqlalchemy.text(WHO))).one())
            finally:
                await engine.dispose()
                await asyncio.sleep(0.05)  # what asyncpg has closed takes a moment to be gone

        return asyncio.run(main())

    return use


WAYS = {
    "psycopg": with_psycopg,
    "psycopg-async": with_psycopg_async,
    "psycopg2": with_psycopg2,
    "sqlalchemy-psycopg": with_engine("psycopg"),
    "sqlalchemy-psycopg2": with_engine("psycopg2"),
    "sqlalchemy-async-psycopg": with_async_engine("psycopg"),
    "sqlalchemy-async-asyncpg": with_async_engine("asyncpg"),
}


@pytest.fixture(params=WAYS)
def use(request, box, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    return partial(WAYS[request.param], box)


@pytest.fixture
def credential(box):
    return ManagedIdentityCredential()


def test_an_identity_of_its_own_name(use, box, credential):
    assert use(credential) == ("sandbox-app", "TLSv1.3")
    assert use(credential) == ("sandbox-app", "TLSv1.3")
    assert len(box.authority.requests) == 1


def test_a_system_assigned_identity(use, box, credential):
    resource = Identity(f"vm-{uuid.uuid4()}", kind="system-assigned")
    box.create_role(resource)
    box.authority.identity = resource
    try:
        assert use(credential)[0] == resource.name
    finally:
        box.authority.identity = box.identity


def test_a_service_principal_with_an_explicit_user(use, box, credential):
    principal = Identity(f"sp-{uuid.uuid4()}", kind="service-principal")
    box.create_role(principal)
    box.authority.identity = principal
    try:
        with pytest.raises(EntraConnectionValueError, match="service principal") as caught:
            use(credential)
        assert isinstance(caught.value, AzurePgEntraError)
        assert isinstance(caught.value.__cause__, UsernameExtractionError)
        assert use(credential, user=principal.name) == (principal.name, "TLSv1.3")
    finally:
        box.authority.identity = box.identity


def test_a_server_without_tls_gets_no_token(use, box, credential):
    box.gateway.mode = "no-tls"
    with pytest.raises((psycopg.Error, psycopg2.Error, sqlalchemy.exc.DBAPIError, OSError)):
        use(credential)
    assert box.gateway.passwords == 0


@pytest.mark.parametrize("certificate", ["other-name", "unknown-ca"])
def test_tls_is_verified_unless_the_caller_says_how(use, box, credential, certificate):
    box.gateway.certificate = certificate
    with pytest.raises((psycopg.Error, psycopg2.Error, sqlalchemy.exc.DBAPIError, OSError)):
        use(credential)
    assert box.gateway.passwords == 0
    if certificate == "other-name":
        assert use(credential, sslmode="verify-ca")[0] == "sandbox-app"


def test_require_without_a_root_verifies_nothing(use, box, credential, monkeypatch):
    monkeypatch.delenv("PGSSLROOTCERT")
    box.gateway.certificate = "unknown-ca"
    assert use(credential, sslmode="require") == ("sandbox-app", "TLSv1.3")


def test_a_mode_that_does_not_protect_is_refused(use, box, credential, monkeypatch):
    for mode in ("prefer", "allow", "disable", "verify-all"):
        with pytest.raises(EntraConnectionValueError, match=f"sslmode={mode}"):
            use(credential, sslmode=mode)
    monkeypatch.setenv("PGSSLMODE", "disable")
    with pytest.raises(EntraConnectionValueError, match="sslmode=disable"):
        use(credential)
    assert box.gateway.connections == 0


def test_no_credential(use, box):
    for nothing in (None, "a token", object()):
        with pytest.raises(CredentialValueError, match="credential is required"):
            use(nothing)


def test_no_token(use, box):
    box.authority.status = 400
    with pytest.raises(EntraConnectionValueError, match="Microsoft Entra ID"):
        use(ManagedIdentityCredential())


def test_user_and_password_of_the_caller(use, box, credential):
    token = box.issuer.token(box.identity)
    # `require`: with a password of one's own, TLS is one's own affair too.
    assert use(credential, user="sandbox-app", password=token)[0] == "sandbox-app"
    assert box.authority.requests == []


class Changing(FakeCredential):
    """Gives tokens of the sandbox's issuer, for one audience after the other."""

    def __init__(self, box, *resources):
        super().__init__()
        self.box = box
        self.resources = list(resources)

    def get_token(self, *scopes, **_):
        answer = super().get_token(*scopes)
        resource = self.resources.pop(0) if len(self.resources) > 1 else self.resources[0]
        return answer._replace(token=self.box.issuer.token(self.box.identity, resource=resource))


def test_a_cached_token_that_is_refused_is_replaced_once(use, box):
    credential = Changing(box, "https://wrong.example", SCOPE.removesuffix("/.default"))
    source_of(credential, SCOPE, "on-demand").get()  # cached, and no server has seen it
    assert use(credential)[0] == "sandbox-app"
    assert len(credential.scopes) == 2
    assert len(box.gateway.refusals) == 1


class OfALoop(FakeCredential):
    """An async credential: has to be awaited on the loop it belongs to."""

    def __init__(self, box):
        super().__init__()
        self.box = box

    async def get_token(self, *scopes, **_):
        answer = super().get_token(*scopes)
        await asyncio.sleep(0.01)
        self.thread = threading.current_thread()
        return answer._replace(token=self.box.issuer.token(self.box.identity))


def test_an_async_credential(use, box):
    credential = OfALoop(box)
    if "async" in use.func.__qualname__:
        assert use(credential)[0] == "sandbox-app"
        assert credential.thread is threading.main_thread()
    else:
        with pytest.raises(CredentialValueError, match="async credential"):
            use(credential)


def test_pools_of_psycopg(box, credential, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    box.authority.delay = 0.3
    with psycopg_pool.ConnectionPool(
        dsn(box),
        connection_class=EntraConnection,
        kwargs={"credential": credential},
        min_size=20,
        num_workers=8,
    ) as pool:
        pool.wait(20)
        with pool.connection() as conn:
            assert conn.execute(WHO).fetchone()[0] == "sandbox-app"

    async def main():
        async with psycopg_pool.AsyncConnectionPool(
            dsn(box),
            connection_class=AsyncEntraConnection,
            kwargs={"credential": credential},
            min_size=20,
        ) as pool:
            await pool.wait(20)

    asyncio.run(main())
    assert box.gateway.passwords == 40
    assert len(box.authority.requests) == 1


def test_a_pool_of_psycopg2(box, credential, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    pool = psycopg2.pool.ThreadedConnectionPool(
        1,
        5,
        host="localhost",
        port=box.gateway.port,
        database="app",
        connection_factory=partial(Psycopg2EntraConnection, credential=credential),
    )
    try:
        with ThreadPoolExecutor(5) as threads:
            together = threading.Barrier(5)

            def work(_):
                conn = pool.getconn()
                together.wait(10)
                with conn.cursor() as cursor:
                    cursor.execute(WHO)
                    found = cursor.fetchone()
                pool.putconn(conn)
                return found[0]

            assert set(threads.map(work, range(5))) == {"sandbox-app"}
    finally:
        pool.closeall()
    assert len(box.authority.requests) == 1


def test_parameters_are_never_edited_in_place(box, credential, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    arguments = {"credential": credential}
    engine = sqlalchemy.create_engine(url(box, "psycopg"), connect_args=arguments)
    seen = []

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def look(dialect, record, cargs, cparams):
        seen.append(dict(cparams))

    enable_entra_authentication(engine)

    for _ in range(2):
        with engine.connect():
            pass
        engine.dispose()
    assert arguments == {"credential": credential}
    assert seen[0] == seen[1]
    assert "password" not in seen[1]


def test_tokens_go_with_their_credential(box, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    import weakref

    before = set(threading.enumerate())
    credential = ManagedIdentityCredential()
    assert with_psycopg(box, credential)[0] == "sandbox-app"
    gone = weakref.ref(credential)
    del credential
    deadline = time.monotonic() + 10
    while gone() is not None or new_threads(before):  # the one that asked may just be ending
        assert time.monotonic() < deadline
        gc.collect()


def new_threads(before):
    found = {thread for thread in threading.enumerate() if thread.name.startswith("azpgauth")}
    return found - before


def test_the_loop_of_windows_is_told_at_once(box, credential):
    class ProactorEventLoop(asyncio.SelectorEventLoop):
        pass

    loop = ProactorEventLoop()
    try:
        with pytest.raises(ConnectError, match="SelectorEventLoop"):
            loop.run_until_complete(AsyncEntraConnection.connect(dsn(box), credential=credential))
    finally:
        loop.close()
    assert box.authority.requests == []


def moved_programs():
    """The examples of azure-postgresql-auth's own README, with its import's root changed."""
    described = metadata("azure-postgresql-auth").get_payload() or metadata(
        "azure-postgresql-auth"
    ).get("Description")
    title = ""
    inside = None
    for line in described.splitlines():
        if inside is not None:
            if line.startswith("```"):
                if any("azure_postgresql_auth" in one for one in inside):
                    yield pytest.param("\n".join(inside), id=title)
                inside = None
            else:
                inside.append(line)
        elif line.startswith("```python"):
            inside = []
        elif line.startswith("#"):
            title = line.strip("# ").replace(" ", "-")


@pytest.mark.parametrize("program", list(moved_programs()))
def test_moved_programs(box, program, tmp_path):
    program = (
        program.replace("azure_postgresql_auth", "azpgauth")
        .replace("your-server.postgres.database.azure.com:5432", f"localhost:{box.gateway.port}")
        .replace("your-server.postgres.database.azure.com", "localhost")
        .replace("your_database", "app")
    )
    imports = [line for line in program.splitlines() if line.startswith(("from ", "import "))]
    rest = [line for line in program.splitlines() if line not in imports]
    if "await " in program or "async with" in program:
        body = textwrap.indent("\n".join(rest), "    ")
        rest = ["import asyncio", "async def main():", body, "asyncio.run(main())"]
    # What these examples leave out: SQLAlchemy's text.
    whole = [*imports, "from sqlalchemy import text", *rest]
    file = tmp_path / "program.py"
    file.write_text("\n".join(whole))
    run = subprocess.run(
        [sys.executable, file],
        env={
            **os.environ,
            "PGPORT": str(box.gateway.port),
            "PGSSLROOTCERT": box.environment["AZPG_SERVER_SSLROOTCERT"],
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    assert box.gateway.passwords >= 1
    assert not box.gateway.refusals


def test_there_are_programs_to_move():
    assert len(list(moved_programs())) >= 7


@pytest.mark.parametrize(
    ("fault", "value"),
    [("answer", "no"), ("certificate", "unknown-ca"), ("mode", "no-tls"), ("status", 400)],
)
def test_a_failed_sign_in_shows_no_token(use, box, credential, fault, value):
    """But for SQLAlchemy's own frames, which have what the program put into `connect_args`."""
    setattr(box.authority if fault == "status" else box.gateway, fault, value)
    for _ in range(2):  # the second time, the credential has a token in its cache
        with pytest.raises(Exception) as caught:  # noqa: PT011 - any driver's
            use(credential)
    found = leaked(caught.value, *box.authority.issued)
    assert [where for where in found if "/sqlalchemy/" not in where] == []


def test_what_is_refused_shows_neither_credential_nor_environment(use, box, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hunter2")
    credential = FakeCredential()
    credential.cache = {"token": "hunter3"}
    with pytest.raises(EntraConnectionValueError) as caught:
        use(credential)
    found = leaked(caught.value, "hunter2", "hunter3")
    assert [where for where in found if "/sqlalchemy/" not in where] == []
