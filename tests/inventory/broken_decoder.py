"""A decoder for tests. The content of the file selects how the process ends."""

import os
import signal
import sys
import time
from pathlib import Path

END = sys.stdin.buffer.read().decode()
if END == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
elif END == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif END.startswith("hang"):
    if path := END.partition(" ")[2]:
        Path(path).write_text(str(os.getpid()))
    time.sleep(1000)
elif END == "environment":
    # the error message in the log is the only output that the test can read
    sys.stderr.write(" ".join(sorted(os.environ)))
    sys.exit(1)
elif END == "exception":
    raise ValueError("a bug")
