"""Processes under measure: started on their core, watched through /proc, ended by pid. Linux only.

The server under measure has core 0 to itself; the database, this harness and its load client
share the others. Affinity is inherited, so it is set on this thread around each start.
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
OTHERS = ALL - SERVER or SERVER  # on a one-core machine everything shares
SETTLED = 0.15  # servers that use less than this of a core have nothing left to do
PATIENCE = 10.0  # seconds to wait for that


class StartFailed(RuntimeError):
    """A process ended, or stayed silent, before it answered 200."""


class Database(Protocol):
    """What is used of `markethall.local.postgres.EmbeddedPostgres`."""

    def start(self) -> str: ...
    def stop(self) -> None: ...


@dataclass
class Server:
    """One started process, listening on `port`."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    started: float = field(default_factory=time.perf_counter)

    def wait(self, path: str, seconds: float = 60) -> float:
        """Seconds from the start to the first 200 on `path`."""
        return self.wait_all([path], seconds)[path]

    def wait_all(self, paths: list[str], seconds: float = 60) -> dict[str, float]:
        """The same for several paths, asked in turn."""
        took: dict[str, float] = {}
        while len(took) < len(paths):
            self._check(seconds)
            for path in paths:
                if path not in took and status(self.port, path) == 200:
                    took[path] = time.perf_counter() - self.started
            time.sleep(0.005)
        return took

    def _check(self, seconds: float) -> None:
        if self.process.poll() is not None:
            raise StartFailed(f"ended with code {self.process.returncode}:\n{self._last_words()}")
        if time.perf_counter() - self.started > seconds:
            raise StartFailed(f"no 200 within {seconds:.0f} s:\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def pinned(cores: AbstractSet[int]) -> Iterator[None]:
    """This thread, and what it starts meanwhile, on these cores."""
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
    """`python -m module args --port P`, on the server's core by default, until the block ends."""
    port = port or free_port()
    command = [sys.executable, "-m", module, *args, "--port", str(port)]
    with log.open("ab") as output, pinned(cores):
        started = time.perf_counter()
        # its own session: Ctrl-C reaches us alone, and we end the processes in order
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
    """`python -m module args` to its end; raises StartFailed when it fails."""
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


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without MARKETHALL_ settings, with the source tree importable."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MARKETHALL_")}
    paths = [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    return kept | {"PYTHONPATH": os.pathsep.join([*paths, str(ROOT / "src")])} | dict(ours)


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """Markethall's embedded Postgres beside the client, and its URL."""
    if str(ROOT / "src") not in sys.path:
        sys.path.append(str(ROOT / "src"))
    postgres = importlib.import_module("markethall.local.postgres")
    server = cast("Database", postgres.EmbeddedPostgres(folder))
    with ExitStack() as stack, pinned(OTHERS):
        stack.callback(server.stop)
        yield server.start()


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, after 30 s SIGKILL; then whatever it left behind, by pid."""
    family = {pid: _born(pid) for pid in descendants(process.pid)}
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    time.sleep(0.2 if family else 0)
    for pid, born in family.items():
        if born and _born(pid) == born:  # still the same process, not a new one of that number
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def settle(*pids: int) -> float:
    """Wait until these servers have nothing left to do; the seconds that took."""
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < PATIENCE:
        before = Ticks.now(*pids)
        time.sleep(0.3)
        if Ticks.now(*pids).seconds(before) < 0.3 * SETTLED:
            break
    return passed


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """All different: none is given back before the last is taken."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def status(port: int, path: str) -> int | None:
    """The status `path` answers with now; None when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def rss(pid: int) -> float:
    """Resident memory in MB (10^6 bytes); 0 when the process is gone."""
    return _megabytes(Path(f"/proc/{pid}/status"), "VmRSS:")


def pss(pid: int) -> float:
    """The same with each shared page divided by those who share it; 0 where it is not readable."""
    return _megabytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _megabytes(file: Path, name: str) -> float:
    with suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def descendants(pid: int) -> list[int]:
    """Children, their children and so on."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            below.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def command_name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "gone"


def _born(pid: int) -> str:
    stat = _stat(pid)
    return stat[19] if stat and stat[0] != "Z" else ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return []


@dataclass(frozen=True)
class Ticks:
    """The clock ticks spent until now: per core (busy, stolen, all), by us, by some processes.

    "Us" is this harness and all it has started; what the cores did beyond that is foreign.
    """

    cores: dict[int, tuple[int, int, int]]
    us: int
    processes: int

    @classmethod
    def now(cls, *pids: int) -> "Ticks":
        """With the ticks of these processes."""
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        cores = [row for row in rows if row[0].startswith("cpu") and row[0] != "cpu"]
        spent = {int(row[0][3:]): _spent([int(tick) for tick in row[1:9]]) for row in cores}
        family = [os.getpid(), *descendants(os.getpid())]
        return cls(spent, sum(map(_worked, family)), sum(map(_worked, pids)))

    def busy(self, since: "Ticks", cores: set[int]) -> float:
        """The share of these cores' time that was spent working, 0 to 1."""
        return _share(self._passed(since, cores, 0), self._passed(since, cores, 2))

    def stolen(self, since: "Ticks") -> float:
        """The share of all cores' time the hypervisor gave to somebody else."""
        return _share(self._passed(since, ALL, 1), self._passed(since, ALL, 2))

    def foreign(self, since: "Ticks") -> float:
        """The share of all cores' time that programs we did not start have used."""
        theirs = self._passed(since, ALL, 0) - (self.us - since.us)
        return max(_share(theirs, self._passed(since, ALL, 2)), 0.0)

    def seconds(self, since: "Ticks") -> float:
        """The processor seconds that the processes used."""
        return (self.processes - since.processes) / os.sysconf("SC_CLK_TCK")

    def _passed(self, since: "Ticks", cores: set[int], kind: int) -> int:
        return sum(self.cores[core][kind] - since.cores[core][kind] for core in cores)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _spent(ticks: list[int]) -> tuple[int, int, int]:
    # user nice system idle iowait irq softirq steal
    return sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7], sum(ticks)


def _worked(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[11]) + int(stat[12]) if stat else 0
