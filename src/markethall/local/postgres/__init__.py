"""An embedded Postgres: a real server as a child process, which needs no installation.

The programs come from the optional extra `embedded` or from PATH. The server listens on a free port
of the loopback interface. `stop` ends the server; on Linux it also ends if this process is killed.
"""

from markethall.local.postgres.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
