"""An embedded Postgres: a real server as a child of this process, without any installation.

The server comes from the optional extra `embedded` or from PATH, listens on a free port of the
loopback interface, and ends with this process. On Linux that holds also after kill -9; elsewhere
only after `stop()`.
"""

from markethall.local.postgres.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
