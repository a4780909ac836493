"""Runs an embedded server from a thread of its own, which restarts it and limits its log file."""

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Final

import structlog

from markethall.local.errors import EmbeddedError
from markethall.local.server_process import end

log = structlog.get_logger("markethall.local")

MAX_LOG_BYTES: Final = 1 << 20
MAX_RESTARTS: Final = 5
_RESTART_WINDOW_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0

Launch = Callable[[IO[bytes], threading.Event], "subprocess.Popen[bytes]"]


class ServerThread:
    """The thread that starts, watches and restarts one server.

    Linux sends the parent death signal when the thread that started the child ends, not only when
    its process ends. So a single thread makes all starts, and lives as long as the server.

    `launch(log_file, stopping)` starts the server and returns when it is ready; it gives up when
    the event `stopping` is set. With `on_failure`, a server that ends by itself is restarted. If it
    ends more than MAX_RESTARTS times within a minute, `on_failure` is called, and `stop` raises
    EmbeddedError.
    """

    def __init__(
        self,
        name: str,
        launch: Launch,
        log_file: IO[bytes],
        ending: Sequence[signal.Signals],
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._launch = launch
        self._log_file = log_file
        self._ending = ending
        self._on_failure = on_failure
        self._stopping, self._started = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._failure: EmbeddedError | None = None
        self._ends: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        self._thread = threading.Thread(target=self._run, name=f"embedded {name}", daemon=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it is ready. Raises the error of `launch`."""
        self._thread.start()
        self._started.wait()
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Stop the server. Raises EmbeddedError if it ended so often that it was not restarted."""
        self._stopping.set()
        self._thread.join()
        self.process = None
        self._log_file.close()
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def _run(self) -> None:
        try:
            process = self.process = self._launch(self._log_file, self._stopping)
        except BaseException as error:  # noqa: BLE001 - raised again in `start`
            self._error = error
            return
        finally:
            self._started.set()
        self._watch(process)

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        while not self._stopping.wait(_CHECK_SECONDS):
            if process.poll() is not None:
                restarted = self._restart(_ending_of(process)) if self._on_failure else None
                if restarted is None:
                    return
                process = self.process = restarted
            limit_log(self._log_file)
        end(process, *self._ending)

    def _restart(self, reason: str) -> "subprocess.Popen[bytes] | None":
        """Return the new process, or None if `stop` was called or the server ends too often."""
        while not self._stopping.is_set():
            if not self._may_restart():
                self._fail(reason)
                return None
            log.warning("embedded_server.restarting", server=self._name, reason=reason)
            try:
                return self._launch(self._log_file, self._stopping)
            except (EmbeddedError, OSError) as error:
                reason = str(error)
            self._stopping.wait(RETRY_SECONDS)
        return None

    def _may_restart(self) -> bool:
        self._ends.append(time.monotonic())
        is_full = len(self._ends) > MAX_RESTARTS
        return not is_full or self._ends[-1] - self._ends[0] > _RESTART_WINDOW_SECONDS

    def _fail(self, reason: str) -> None:
        self._failure = EmbeddedError(
            f"{self._name} ended {MAX_RESTARTS + 1} times within a minute: {reason}"
        )
        log.error("embedded_server.failed", server=self._name, reason=reason)
        if self._on_failure:
            self._on_failure()


class EmbeddedServer(ABC):
    """A server that this process starts, in a ServerThread.

    As a context manager, this object yields the URL and stops the server at the end.
    """

    def __init__(self, on_failure: Callable[[], None] | None) -> None:
        self._on_failure = on_failure
        self._thread: ServerThread | None = None
        self._port: int | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id of the server, or None if this object has not started it."""
        process = self._thread.process if self._thread else None
        return process.pid if process else None

    def start(self) -> str:
        """Start the server and return its URL. A second call returns the same URL.

        Raises EmbeddedMissing, EmbeddedBusy or EmbeddedError.
        """
        if self._thread is None:
            self._start()
        return self._url()

    def stop(self) -> None:
        """Stop the server without waiting for clients. May be called twice.

        Raises EmbeddedError if the server ended so often that it was not restarted.
        """
        thread, self._thread = self._thread, None
        self._port = None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _start(self) -> None:
        """Start the server in a thread, and set the port."""

    @abstractmethod
    def _url(self) -> str:
        """Return the URL of the running server."""


def limit_log(file: IO[bytes]) -> None:
    """Shorten a log file of more than MAX_LOG_BYTES to its last MAX_LOG_BYTES / 2 bytes.

    The server appends to the same file. Output that it writes during this call may be lost.
    """
    size = os.fstat(file.fileno()).st_size
    if size <= MAX_LOG_BYTES:
        return
    file.seek(size - MAX_LOG_BYTES // 2)
    newest = file.read()
    file.truncate(0)
    file.write(newest)
    file.flush()


def _ending_of(process: "subprocess.Popen[bytes]") -> str:
    code = process.returncode
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
