"""Stands before PostgreSQL, as in Azure: demands TLS, checks tokens, then hands over.

It counts what it is sent, so that a test can prove that a token never travelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Literal

from azpgauth.sandbox.postgres import wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Gateway", "Mode"]

Mode = Literal["normal", "no-tls", "starting-up", "dropping", "deaf", "full"]
Certificate = Literal["good", "other-name", "unknown-ca"]

_LARGEST = 64 * 1024  # bytes of a startup packet or a password; tokens reach 7 kB


class Gateway:
    """Listens on loopback. Its attributes are its faults: set them at any time.

    Args:
        refusal: Says why a password is not let in as a role; None if it is.
        server: The path of PostgreSQL's socket.
        certificates: For each kind of certificate, a PEM with its key.
        port: Where to listen; 0 takes a free one.

    Attributes:
        mode: ``normal``; ``no-tls`` declines TLS and takes passwords all the same;
            ``starting-up`` and ``full`` answer so in PostgreSQL's words; ``dropping`` hangs up;
            ``deaf`` accepts and never answers.
        certificate: Which certificate it shows.
        connections: How many connections came in.
        messages: How often clients sent something once they had signed in: round trips, mostly.
        passwords: How many passwords it was sent, let in or not.
        users: The roles they were sent for, exactly as on the wire.
        answer: Refuses every password in these words.
        refusals: What it answered to those it did not let in.
    """

    def __init__(
        self,
        refusal: Callable[[str, str], str | None],
        server: str,
        certificates: dict[Certificate, Path],
        port: int = 0,
    ) -> None:
        self._refusal = refusal
        self._server = server
        self._contexts = {kind: _context(path) for kind, path in certificates.items()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sandbox-gateway", daemon=True)
        self._listening: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()
        self.port = port
        self.connections = 0
        self.messages = 0
        self.passwords = 0
        self.users: list[str] = []
        self.refusals: list[str] = []
        self.reset()

    def reset(self) -> None:
        """No faults, and nothing counted."""
        self.mode: Mode = "normal"
        self.certificate: Certificate = "good"
        self.connections = 0
        self.messages = 0
        self.passwords = 0
        self.users.clear()
        self.answer: str | None = None
        self.refusals.clear()

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self.listen()

    def stop(self) -> None:
        """End, and drop whoever is connected."""
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)
        if not self._loop.is_running():
            self._loop.close()

    def lead_to(self, server: str) -> None:
        """Lead new connections to another server.

        Args:
            server: The path of its socket.
        """
        self._server = server

    def listen(self) -> None:
        """Listen (again), on the same port."""
        self._do(self._listen())

    def refuse(self) -> None:
        """Do not listen any more, so that the port refuses connections; those open stay."""
        self._do(self._stop_listening())

    def drop(self) -> None:
        """Cut all open connections."""
        self._do(self._cut())

    def freeze(self) -> None:
        """Fall silent on all open connections: what comes is acknowledged, and goes no further.

        Those that are made later work.
        """
        self._do(self._freeze())

    def thaw(self) -> None:
        """Go on with what `freeze` held back."""
        self._do(self._thaw())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        if self._listening:
            return
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._listening = [server]
        # `localhost` may mean ::1 first; not every machine has it.
        with contextlib.suppress(OSError):
            self._listening.append(await asyncio.start_server(self._serve, "::1", self.port))

    async def _stop_listening(self) -> None:
        for server in self._listening:
            server.close()
        self._listening = []

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _freeze(self) -> None:
        for gate in self._gates:
            gate.clear()

    async def _thaw(self) -> None:
        for gate in self._gates:
            gate.set()

    async def _close(self) -> None:
        await self._stop_listening()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - streams run this in a task
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass  # whoever was there hung up, or the gateway stops
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "dropping":
            return
        if self.mode == "deaf":
            await reader.read(-1)
            return
        encrypted = False
        while True:
            packet = await _packet(reader)
            code = struct.unpack_from("!i", packet, 4)[0]
            if code == wire.GSS or (code == wire.SSL and self.mode == "no-tls"):
                writer.write(b"N")
            elif code == wire.SSL:
                writer.write(b"S")
                writer = await _start_tls(reader, writer, self._contexts[self.certificate])
                self._writers.add(writer)
                encrypted = True
            else:
                break
        try:
            if code == wire.CANCEL:
                await self._cancel(packet)
            elif answer := await self._sign_in(packet, reader, writer, encrypted=encrypted):
                writer.write(answer)
                await writer.drain()
            else:
                await self._hand_over(packet, reader, writer)
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 1)

    async def _sign_in(
        self,
        packet: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        encrypted: bool,
    ) -> bytes | None:
        """None if the client may go on, else the error for it."""
        if self.mode == "starting-up":
            return wire.error("57P03", "the database system is starting up")
        if self.mode == "full":
            return wire.error("53300", "sorry, too many clients already")
        asked = wire.parameters(packet[8:])
        role = asked.get("user", "")
        if not encrypted and self.mode != "no-tls":
            database = asked.get("database", role)
            return wire.error(
                "28000",
                f'no pg_hba.conf entry for host "127.0.0.1", user "{role}", '
                f'database "{database}", no encryption',
            )
        writer.write(wire.ASK_PASSWORD)
        kind, length = struct.unpack("!ci", await reader.readexactly(5))
        if kind != b"p" or length > _LARGEST:
            return wire.error("08P01", "expected a password")
        password = (await reader.readexactly(length - 4)).rstrip(b"\0").decode(errors="replace")
        self.passwords += 1
        self.users.append(role)
        refusal = self.answer or self._refusal(password, role)
        if refusal is None:
            return None
        self.refusals.append(refusal)
        return wire.error("28P01" if refusal.startswith("password") else "28000", refusal)

    async def _cancel(self, packet: bytes) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        to_server.write(packet)
        await from_server.read(-1)  # the server hangs up once it has done it
        to_server.close()

    async def _hand_over(
        self, packet: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._server)
        except OSError:
            writer.write(wire.error("57P03", "the database system is starting up"))
            return
        role = wire.parameters(packet[8:]).get("user", "")
        more = {"user": wire.identifier(role), **_tls_seen(writer)}
        to_server.write(wire.extended(packet, more))
        gate = asyncio.Event()
        gate.set()
        self._gates.add(gate)

        def count() -> None:
            self.messages += 1

        await asyncio.gather(
            _copy(reader, to_server, gate, count), _copy(from_server, writer, gate, _uncounted)
        )


def _tls_seen(writer: asyncio.StreamWriter) -> dict[str, str]:
    """What the server would know of the client's TLS if it ended there; see server.py."""
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return {}
    name, _, bits = tls.cipher()
    return {
        "azpgauth_sandbox.tls_version": tls.version(),
        "azpgauth_sandbox.tls_cipher": name,
        "azpgauth_sandbox.tls_bits": str(bits),
    }


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    gate: asyncio.Event,
    count: Callable[[], None],
) -> None:
    try:
        while data := await reader.read(_LARGEST):
            count()
            await gate.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other end is gone, and that is passed on
    finally:
        writer.close()


def _uncounted() -> None:
    pass


async def _packet(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    length = struct.unpack("!i", head)[0]
    if not 8 <= length <= _LARGEST:
        raise EOFError
    return head + await reader.readexactly(length - 4)


async def _start_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> asyncio.StreamWriter:
    """TLS on an open connection; `StreamWriter.start_tls` is there since Python 3.11 only."""
    await writer.drain()
    loop = asyncio.get_running_loop()
    protocol = writer.transport.get_protocol()
    # Before the handshake: the client may hang up in the middle of it.
    protocol._over_ssl = True  # type: ignore[attr-defined]  # noqa: SLF001
    transport = await loop.start_tls(
        writer.transport, protocol, context, server_side=True, ssl_handshake_timeout=10
    )
    if transport is None:
        raise EOFError
    # Flow control of what is read from now on belongs to the new transport.
    reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001
    return asyncio.StreamWriter(transport, protocol, reader, loop)


def _context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    return context
