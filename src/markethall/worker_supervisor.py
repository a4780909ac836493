"""Runs several worker processes on one socket, with uvicorn's supervisor."""

import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from markethall.shared.observability import log

_MAX_PAUSE_SECONDS: Final = 30.0
# the pause doubles with each death of a worker within this time
_MEMORY_SECONDS: Final = 60.0

logger = log.get_logger("markethall.server")


class RestartPauses:
    """Computes the pause before a restart: 0, 1, 2, 4 … 30 s for deaths within one minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: deque[float] = deque(maxlen=100)

    def next_pause(self) -> float:
        """Count the death of a worker, and return the seconds to wait before its restart."""
        now = self._clock()
        while self._deaths and self._deaths[0] <= now - _MEMORY_SECONDS:
            self._deaths.popleft()
        self._deaths.append(now)
        earlier = len(self._deaths) - 1
        return min(2.0 ** (earlier - 1), _MAX_PAUSE_SECONDS) if earlier else 0.0


class WorkerSupervisor(Multiprocess):
    """Restarts workers that end, while the other workers continue to serve.

    If a worker fails before any worker has served, the supervisor ends with exit code 1: the cause
    is probably a wrong setting, and a restarted worker would fail too.
    """

    exit_code = 0

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._pauses = RestartPauses()
        self._restart_at: dict[Process, float] = {}
        self._has_served = False

    def keep_subprocess_alive(self) -> None:
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            # close this process's copy of the worker's end of the pipe; otherwise a ping of a dead
            # worker would not fail, but wait for the timeout
            process.child_conn.close()
            if process not in self._restart_at and not self._is_alive(process):
                self._note_death(process)
            if time.monotonic() >= self._restart_at.get(process, float("inf")):
                self._restart(index)

    def terminate_all(self) -> None:
        super().terminate_all()
        # otherwise the kernel would still accept connections, which no worker would serve
        for listener in self.sockets:
            listener.close()

    def _is_alive(self, process: Process) -> bool:
        timeout = self.config.timeout_worker_healthcheck
        is_alive = process.is_alive(timeout)
        if is_alive and not self._has_served:
            self._has_served = process.is_ready(timeout)
        return is_alive

    def _note_death(self, process: Process) -> None:
        process.kill()  # a worker that does not respond is still running
        process.join()
        logger.error("worker.died", pid=process.pid, exit_code=process.exitcode)
        if process.exitcode and process.exitcode > 0 and not self._has_served:
            self.exit_code = 1
            self.should_exit.set()
        self._restart_at[process] = time.monotonic() + self._pauses.next_pause()

    def _restart(self, index: int) -> None:
        del self._restart_at[self.processes[index]]
        self.processes[index] = Process(self.config, self.sockets)
        self.processes[index].start()
