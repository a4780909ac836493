"""Becomes another program that ends with its parent, also when that is killed.

    python -m markethall.apart.tether PARENT -m markethall serve …

In the child and before the program, not between fork and exec: there a parent that has threads may
not run Python.
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1


def become(parent: int, arguments: list[str]) -> NoReturn:
    if sys.platform == "linux":
        # the axe: a stopped process heeds nothing else, and whoever was being served is gone too
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - this very program


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
