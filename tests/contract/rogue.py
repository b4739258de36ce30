"""A server that takes whatever password it is given, for tests in which it must be given none."""

import asyncio
import contextlib
import struct
import threading

from azpgauth.sandbox.postgres import wire


def request(code, more=b""):
    """An authentication request.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """
    return b"R" + struct.pack("!ii", 8 + len(more), code) + more


CLEARTEXT = request(3)
MD5 = request(5, b"salt")
SCRAM = request(10, b"SCRAM-SHA-256\0\0")


class Rogue:
    """Declines TLS and asks for a password; what it hears then is kept.

    Args:
        folders: Where its sockets are to be, besides a port of TCP.
        ask: How it asks.
    """

    def __init__(self, folders=(), ask=CLEARTEXT):
        self.ask = ask
        self.heard = []
        self._sockets = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = self._do(asyncio.start_server(self._serve, "127.0.0.1"))
        self._servers = [server]
        self.port = server.sockets[0].getsockname()[1]
        for folder in folders:
            path = folder / f".s.PGSQL.{self.port}"
            try:
                self._servers.append(self._do(asyncio.start_unix_server(self._serve, path)))
            except OSError:
                continue  # a folder that this machine does not have, or not for this user
            self._sockets.append(path)

    def also(self, address, port):
        self._servers.append(self._do(asyncio.start_server(self._serve, address, port)))

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
            while True:
                length, code = struct.unpack("!ii", await reader.readexactly(8))
                await reader.readexactly(length - 8)
                if code not in {80877103, 80877104}:  # TLS, GSS
                    break
                writer.write(b"N")
            writer.write(self.ask)
            kind, length = struct.unpack("!ci", await reader.readexactly(5))
            self.heard.append((kind, await reader.readexactly(length - 4)))
            writer.write(wire.error("28P01", "empty password returned by client"))

    def close(self):
        async def closed():
            for server in self._servers:
                server.close()
            await asyncio.sleep(0)  # who has just come in is a task by then
            serving = asyncio.all_tasks() - {asyncio.current_task()}
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

        self._do(closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)
