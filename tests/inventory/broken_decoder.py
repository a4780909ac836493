"""A decoder for tests that ends as the file says, instead of decoding it."""

import os
import signal
import sys
import time

END = sys.stdin.buffer.read().decode()
if END == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
elif END == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif END == "hang":
    time.sleep(1000)
elif END == "environment":
    # the only place in which the test can look
    sys.stderr.write(" ".join(sorted(os.environ)))
    sys.exit(1)
elif END == "exception":
    raise ValueError("a bug")
