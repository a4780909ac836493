"""End a process when its parent ends, also after kill -9 of the parent.

A parent with threads must not run Python code between fork and exec. It starts the child through
this module instead, which requests the signal and then replaces itself with the program:

    python -m markethall.die_with_parent PARENT_PID -m markethall serve …
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
# loaded at import: a function that runs between fork and exec should do as little as possible
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, ending: signal.Signals) -> None:
    """Request the signal from Linux when the parent ends; elsewhere only check that it is alive.

    A change of user clears the request, so call this after it.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(ending))
    # the parent may have ended before the line above
    if os.getppid() != parent:
        os._exit(1)


def exec_with_parent_death(parent: int, arguments: list[str]) -> NoReturn:
    """Replace this process with Python. SIGKILL, because it also ends a stopped process."""
    die_with_parent(parent, signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - Python itself


if __name__ == "__main__":
    exec_with_parent_death(int(sys.argv[1]), sys.argv[2:])
