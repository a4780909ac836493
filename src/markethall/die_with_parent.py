"""Ends a process when its parent ends, even if the parent is killed by SIGKILL.

A parent with threads must not run Python code between fork and exec. So it starts this module as
the child. The module asks Linux to kill the child when the parent ends, and then replaces itself
with the program:

    python -m markethall.die_with_parent PARENT_PID -m markethall serve …
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
# loaded at import, because code between fork and exec should do as little as possible
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, ending: signal.Signals) -> None:
    """Ask Linux to send the signal `ending` to this process when the parent ends.

    On other systems this only checks that the parent is alive. Linux forgets the request when the
    process changes its user id, so call this after such a change.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(ending))
    # Linux sends no signal if the parent ended before the request
    if os.getppid() != parent:
        os._exit(1)


def exec_with_parent_death(parent: int, arguments: list[str]) -> NoReturn:
    """Replace this process with a Python program that gets SIGKILL when the parent ends.

    The signal is SIGKILL, because other signals do not end a process that SIGSTOP has stopped.
    """
    die_with_parent(parent, signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - Python itself


if __name__ == "__main__":
    exec_with_parent_death(int(sys.argv[1]), sys.argv[2:])
