"""Runs a command of markethall with another latency of the sandbox.

Usage: python -m bench.slow_sandbox SECONDS serve …

A charge with the method `sandbox_slow` takes SECONDS; one with `sandbox_ok` is not delayed.
"""

import sys

from markethall.cli import main
from markethall.payments.gateway import sandbox

if __name__ == "__main__":
    vars(sandbox)["SLOW_SECONDS"] = float(sys.argv.pop(1))
    main()
