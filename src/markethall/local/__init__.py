"""A real Postgres and a real Valkey as children of this process, for trying out and for tests.

Nothing has to be installed or configured: the servers come from the optional extra `embedded`, or
from PATH, listen on a free port of the loopback interface and end with this process. On Linux that
holds even on kill -9; elsewhere only after `stop()`.
"""

from markethall.embedded.errors import EmbeddedBusy, EmbeddedError, EmbeddedMissing
from markethall.embedded.postgres import EmbeddedPostgres
from markethall.embedded.valkey import EmbeddedValkey

__all__ = [
    "EmbeddedBusy",
    "EmbeddedError",
    "EmbeddedMissing",
    "EmbeddedPostgres",
    "EmbeddedValkey",
]
