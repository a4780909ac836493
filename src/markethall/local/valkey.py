"""One Valkey that keeps nothing."""

import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from markethall.embedded.binaries import valkey_binary
from markethall.embedded.errors import EmbeddedError
from markethall.embedded.processes import Account, end, open_log, require_main_thread, serve


class EmbeddedValkey:
    """One Valkey without persistence: neither snapshots nor an append-only file.

    `data_dir` only receives the log. As a context manager it gives the URL and stops at the end.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._folder = data_dir.absolute() if data_dir else None
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def pid(self) -> int | None:
        """The process id of the server, None while it is not running for us."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start the server and return its URL.

        Starting a started server returns the same URL. Raises EmbeddedMissing or EmbeddedError.
        Must be called in the main thread.
        """
        if self._process is None:
            require_main_thread()
            self._start()
        return self._url

    def stop(self) -> None:
        """End the server and wait for it; the second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            end(process, signal.SIGTERM, signal.SIGKILL)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        binary = valkey_binary()
        try:
            with self._open_log() as log:
                self._process, port = serve(
                    lambda port: _command(binary, port),
                    _is_ready,
                    Account.ours(),
                    ending=signal.SIGKILL,  # there is nothing to save
                    log=log,
                )
        except OSError as error:
            raise EmbeddedError(f"Valkey cannot start: {error}") from error
        self._url = f"redis://127.0.0.1:{port}/0"

    def _open_log(self) -> IO[bytes]:
        if self._folder is None:
            return tempfile.TemporaryFile("a+b")
        self._folder.mkdir(parents=True, exist_ok=True)
        return open_log(self._folder / "valkey.log")


def _command(binary: Path, port: int) -> list[str]:
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port)]
    return [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"]


def _is_ready(pid: int, port: int) -> bool:
    """True when the one who answers on the port is the process we started."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\nQUIT\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return False
    return f"process_id:{pid}\r\n".encode() in answer
