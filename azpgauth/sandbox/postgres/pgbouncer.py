"""Runs PgBouncer, as Azure's servers have it, where the machine has the program.

In transaction mode, without prepared statements of its own and without startup options, between
gateway and server: https://learn.microsoft.com/azure/postgresql/connectivity/concepts-pgbouncer
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from azpgauth.errors import AzpgauthError, MissingDriverError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PORT", "PgBouncer", "program"]

PORT = 6432
"""Where Azure's PgBouncer listens."""

_CONFIGURATION = """
[databases]
* = host={server}

[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = trust
auth_user = postgres
auth_query = select rolname, '' from pg_roles where rolname = $1
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_tls_sslmode = disable
ignore_startup_parameters = {ignored}
pidfile =
logfile =
"""

_OF_THE_GATEWAY = ("tls_version", "tls_cipher", "tls_bits")


def program() -> str | None:
    """The program's path, if the machine has it; Debian puts it where only root looks."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")


class PgBouncer:
    """A PgBouncer that listens on a Unix socket only.

    Args:
        folder: The server's folder, where its socket is.
        options: As the server's programs are run: as another user than root.

    Attributes:
        size: How many connections to the server it has at most, for a role and database.
        socket: Its socket's path.
    """

    def __init__(self, folder: Path, options: dict[str, Any], size: int = 2) -> None:
        self._home = folder / "pgbouncer"
        self._server = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.size = size
        self.socket = str(self._home / f".s.PGSQL.{PORT}")

    def start(self) -> None:
        """Start it.

        Raises:
            MissingDriverError: The machine does not have the program.
            AzpgauthError: It did not start; the message has the end of its log.
        """
        path = program()
        if path is None:
            raise MissingDriverError(
                "the sandbox's PgBouncer needs the program pgbouncer, which no wheel has; install "
                "it with the system's packages, such as: apt-get install pgbouncer",
                name="pgbouncer",
            )
        self._home.mkdir(mode=0o700, exist_ok=True)
        file = self._home / "pgbouncer.ini"
        file.write_text(
            _CONFIGURATION.format(
                server=self._server,
                folder=self._home,
                port=PORT,
                size=self.size,
                ignored=", ".join(f"azpgauth_sandbox.{name}" for name in _OF_THE_GATEWAY),
            )
        )
        if "user" in self._options:
            for each in (self._home, file):
                shutil.chown(each, self._options["user"])
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [path, str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                start_new_session=True,
                **self._options,
            )
        (self._home / "pid").write_text(str(self._process.pid))  # for whoever cleans up
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._home / "log").read_text(errors="replace")[-2000:]
                raise AzpgauthError(f"PgBouncer did not start:\n{said}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it at once, cutting all connections."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # since 1.23, SIGTERM waits for clients
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Stop it, cutting all connections, and start it again."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(self.socket)
            except OSError:
                return False
        return True
