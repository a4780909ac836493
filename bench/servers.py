"""Starts measured processes on their core, reads their CPU use from /proc, and stops them.

This works only on Linux. The measured server has core 0 for itself; the database, the benchmark and
its load client share the other cores. A child inherits the cores of the thread that starts it, so
they are set on this thread around each start.
"""

import http.client
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

ROOT = Path(__file__).resolve().parent.parent
ALL = os.sched_getaffinity(0)
SERVER = {min(ALL)}
OTHERS = ALL - SERVER or SERVER  # on a machine with one core, all processes share this core
IDLE_SHARE = 0.15  # a server is idle if it uses a smaller share of a core
SETTLE_TIMEOUT_SECONDS = 10.0


class StartFailed(RuntimeError):
    """A process has ended, or has not responded with 200 in time."""


class Database(Protocol):
    """The methods of `markethall.local.postgres.EmbeddedPostgres` that the benchmark uses."""

    def start(self) -> str: ...
    def stop(self) -> None: ...


@dataclass
class Server:
    """A started process that listens on `port`."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    started: float = field(default_factory=time.perf_counter)

    def wait(self, path: str, seconds: float = 60) -> float:
        """Return the seconds from the start to the first 200 on `path`."""
        return self.wait_all([path], seconds)[path]

    def wait_all(self, paths: list[str], seconds: float = 60) -> dict[str, float]:
        """Return the seconds from the start to the first 200 on each path."""
        seconds_by_path: dict[str, float] = {}
        while len(seconds_by_path) < len(paths):
            self._check(seconds)
            for path in paths:
                if path not in seconds_by_path and status(self.port, path) == 200:
                    seconds_by_path[path] = time.perf_counter() - self.started
            time.sleep(0.005)
        return seconds_by_path

    def _check(self, seconds: float) -> None:
        if self.process.poll() is not None:
            raise StartFailed(f"ended with code {self.process.returncode}:\n{self._log_tail()}")
        if time.perf_counter() - self.started > seconds:
            raise StartFailed(f"no 200 within {seconds:.0f} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def pinned(cores: AbstractSet[int]) -> Iterator[None]:
    """Restrict this thread, and the processes that it starts, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(
    module: str,
    *args: str,
    log: Path,
    environ: Mapping[str, str],
    port: int = 0,
    cores: AbstractSet[int] = frozenset(SERVER),
) -> Iterator[Server]:
    """Run `python -m module args --port P` during the block, by default on the server's core."""
    port = port or free_port()
    command = [sys.executable, "-m", module, *args, "--port", str(port)]
    with log.open("ab") as output, pinned(cores):
        started = time.perf_counter()
        # a new session, so that Ctrl-C does not reach the server; this process stops it
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(process, port, log, started)
    finally:
        end(process)


def run(module: str, *args: str, log: Path, environ: Mapping[str, str]) -> None:
    """Run `python -m module args` to its end. Raises StartFailed if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=ROOT,
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise StartFailed(f"{module} {' '.join(args)} failed:\n{done.stderr[-2000:]}")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this environment with only the given MARKETHALL_ settings, and src/ importable.

    Python stores bytecode, because the image contains it too. Otherwise each start would compile
    all modules again.
    """
    inherited = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("MARKETHALL_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    paths = [inherited["PYTHONPATH"]] if inherited.get("PYTHONPATH") else []
    return inherited | {"PYTHONPATH": os.pathsep.join([*paths, str(ROOT / "src")])} | dict(settings)


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """Run an embedded Postgres on the cores of the client, and yield its URL."""
    if str(ROOT / "src") not in sys.path:
        sys.path.append(str(ROOT / "src"))
    postgres = importlib.import_module("markethall.local.postgres")
    server = cast("Database", postgres.EmbeddedPostgres(folder))
    with ExitStack() as stack, pinned(OTHERS):
        stack.callback(server.stop)
        yield server.start()


def end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM, then SIGKILL after 30 s; then kill the remaining descendants."""
    descendant_starts = {pid: _start_time(pid) for pid in descendants(process.pid)}
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    time.sleep(0.2 if descendant_starts else 0)
    for pid, start_time in descendant_starts.items():
        if start_time and _start_time(pid) == start_time:  # false if the pid was reused
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def settle(*pids: int) -> float:
    """Wait until these servers are idle, at most 10 s, and return the seconds of the wait."""
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SETTLE_TIMEOUT_SECONDS:
        before = Ticks.now(*pids)
        time.sleep(0.3)
        if Ticks.now(*pids).seconds(before) < 0.3 * IDLE_SHARE:
            break
    return elapsed


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different free ports."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def status(port: int, path: str) -> int | None:
    """Return the status code of `path`, or None if there is no response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def rss(pid: int) -> float:
    """Return the resident memory in MB (10^6 bytes); 0 if the process has ended."""
    return _megabytes(Path(f"/proc/{pid}/status"), "VmRSS:")


def pss(pid: int) -> float:
    """Return the proportional set size in MB: shared pages are divided among their processes.

    It is 0 if the value is not readable.
    """
    return _megabytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _megabytes(file: Path, name: str) -> float:
    with suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants."""
    children_of: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children_of.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = children_of.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def command_name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "ended"


def _start_time(pid: int) -> str:
    stat = _stat(pid)
    return stat[19] if stat and stat[0] != "Z" else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; empty if there is no process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return []


@dataclass(frozen=True)
class Ticks:
    """The CPU time that was used until one moment, in clock ticks.

    `cores` has the busy, stolen and total ticks of each core. `run_ticks` are the ticks of this
    process and its descendants; the ticks of all other programs are called foreign. `processes` are
    the ticks of selected processes.
    """

    cores: dict[int, tuple[int, int, int]]
    run_ticks: int
    processes: int

    @classmethod
    def now(cls, *pids: int) -> "Ticks":
        """Read the current ticks; `pids` are the selected processes."""
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        cores = [row for row in rows if row[0].startswith("cpu") and row[0] != "cpu"]
        ticks_by_core = {
            int(row[0][3:]): _core_ticks([int(tick) for tick in row[1:9]]) for row in cores
        }
        descendant_starts = [os.getpid(), *descendants(os.getpid())]
        return cls(
            ticks_by_core, sum(map(_cpu_ticks, descendant_starts)), sum(map(_cpu_ticks, pids))
        )

    def busy(self, since: "Ticks", cores: set[int]) -> float:
        """Return the share of time in which these cores were busy, from 0 to 1."""
        return _share(self._elapsed(since, cores, 0), self._elapsed(since, cores, 2))

    def stolen(self, since: "Ticks") -> float:
        """Return the share of CPU time that the hypervisor gave to other virtual machines."""
        return _share(self._elapsed(since, ALL, 1), self._elapsed(since, ALL, 2))

    def foreign(self, since: "Ticks") -> float:
        """Return the share of CPU time that programs outside of the run used."""
        foreign_ticks = self._elapsed(since, ALL, 0) - (self.run_ticks - since.run_ticks)
        return max(_share(foreign_ticks, self._elapsed(since, ALL, 2)), 0.0)

    def seconds(self, since: "Ticks") -> float:
        """Return the CPU seconds that the selected processes used."""
        return (self.processes - since.processes) / os.sysconf("SC_CLK_TCK")

    def _elapsed(self, since: "Ticks", cores: set[int], kind: int) -> int:
        return sum(self.cores[core][kind] - since.cores[core][kind] for core in cores)


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _core_ticks(ticks: list[int]) -> tuple[int, int, int]:
    # the order in /proc/stat: user nice system idle iowait irq softirq steal
    return sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7], sum(ticks)


def _cpu_ticks(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[11]) + int(stat[12]) if stat else 0
