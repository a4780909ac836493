"""Child processes that end when we end."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from markethall.embedded.errors import EmbeddedBusy, EmbeddedError

POLL_SECONDS = 0.01
_READY_SECONDS = 120.0  # recovery after a crash reads the whole write-ahead log
_STOP_SECONDS = 10.0  # per signal
_PORT_ATTEMPTS = 5
_LOG_BYTES = 1 << 20

# Nothing of ours leaks in: PG* variables, a library path, a locale this machine does not have.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True)
class Account:
    """Who a process runs as; `mask` is who it believes to be, inside a user namespace."""

    uid: int
    gid: int
    mask: tuple[int, int] | None = None

    @classmethod
    def ours(cls) -> "Account":
        """The account of this very process."""
        return cls(os.geteuid(), os.getegid())


def require_main_thread() -> None:
    """EmbeddedError elsewhere: Linux ends the child when the *thread* that started it ends."""
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedError("an embedded server must be started in the main thread")


def serve(
    command: Callable[[int], Sequence[str]],
    is_ready: Callable[[int, int], bool],
    account: Account,
    *,
    ending: signal.Signals,
    log: IO[bytes],
    port_before: int | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server on a free port, wait until it is ready, return both.

    `command(port)` makes the command, `is_ready(pid, port)` looks once, `ending` is the signal the
    server gets when we die. `port_before` is taken again where nobody else has it.
    """
    for attempt in range(_PORT_ATTEMPTS):
        port = port_before if port_before and not attempt else _free_port()
        begin = log.seek(0, os.SEEK_END)
        process = _spawn(command(port), account, ending, (subprocess.DEVNULL, log))
        if _becomes_ready(process, partial(is_ready, process.pid, port)):
            return process, port
        log.seek(begin)
        words = log.read().decode(errors="replace")
        # Somebody may take the port between our look at it and the server's bind.
        if "Address already in use" not in words:
            raise _failure(words)
    raise EmbeddedError(f"no free port in {_PORT_ATTEMPTS} attempts")


def run(
    command: Sequence[str], account: Account, *, typed: str = "", at: Path | None = None
) -> str:
    """What the command prints; EmbeddedError with its last words when it fails.

    It reads `typed`; it is not even started when the account cannot enter `at`.
    """
    pipes = (subprocess.PIPE, subprocess.PIPE)
    with _spawn(command, account, signal.SIGKILL, pipes, at) as process:
        try:
            printed, _ = process.communicate(typed.encode(), _READY_SECONDS)
        except BaseException:
            process.kill()
            raise
    words = printed.decode(errors="replace")
    if process.returncode != 0:
        raise EmbeddedError(f"{Path(command[0]).name} failed: {_last_words(words)}")
    return words


def end(process: subprocess.Popen[bytes], *signals: signal.Signals) -> None:
    """Send one signal after the other until the process has ended."""
    for number in signals:
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def open_log(path: Path) -> IO[bytes]:
    """The file to append to, emptied when it has grown too long."""
    log = open_private(path)
    if log.seek(0, os.SEEK_END) > _LOG_BYTES:
        log.truncate(0)
    return log


def open_private(path: Path) -> IO[bytes]:
    """The file for reading and appending; when it is new, for our eyes only."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b")


def _becomes_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> bool:
    """True when the server is ready, False when it ended first; it never stays half-started."""
    try:
        return _wait_until_ready(process, is_ready)
    except BaseException:
        end(process, signal.SIGKILL)
        raise


def _wait_until_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None:
        if is_ready():
            return True
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server was not ready after {_READY_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return False


def _failure(words: str) -> EmbeddedError:
    if 'lock file "postmaster.pid" already exists' in words:
        return EmbeddedBusy("the data directory is in use by another Postgres: stop it first")
    return EmbeddedError(f"the server ended at start: {_last_words(words)}")


def _last_words(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error:" in line]
    return (telling or lines or ["it said nothing"])[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(
    command: Sequence[str],
    account: Account,
    ending: signal.Signals,
    streams: tuple[int, int | IO[bytes]],
    at: Path | None = None,
) -> subprocess.Popen[bytes]:
    switch = account.uid != os.geteuid()
    return subprocess.Popen(  # noqa: S603  our own programs, no shell
        command,
        stdin=streams[0],
        stdout=streams[1],
        stderr=subprocess.STDOUT,
        cwd="/",  # ours may be closed to the account
        env=_ENVIRONMENT,
        # Away from our terminal: Ctrl-C is for us, who still drain requests that need the server.
        start_new_session=True,
        user=account.uid if switch else None,
        group=account.gid if switch else None,
        extra_groups=[] if switch else None,
        # The one place after the change of user and before the program, see there.
        preexec_fn=_before_exec(account, ending, at),  # noqa: PLW1509  it takes no locks
    )


def _before_exec(account: Account, ending: signal.Signals, at: Path | None) -> Callable[[], None]:
    """What the child does last before exec: after its change of user, which clears the signal."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: less to go wrong after the fork
    parent = os.getpid()

    def before_exec() -> None:
        if account.mask is not None:
            _put_on(libc, account.mask)
        if at is not None:
            os.chdir(at)
        _die_with(libc, parent, ending)

    return before_exec


def _put_on(libc: ctypes.CDLL, mask: tuple[int, int]) -> None:
    """`unshare --user --map-user=… --map-group=…`, for systems without that program."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    # Without giving up setgroups the kernel lets no ordinary user write the map of groups.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{mask[0]} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{mask[1]} {gid} 1")


def _die_with(libc: ctypes.CDLL, parent: int, ending: signal.Signals) -> None:
    if ending != signal.SIGKILL:
        # A shell may have started us with the signal ignored, and exec would keep it so.
        signal.signal(ending, signal.SIG_DFL)
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, int(ending))
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
