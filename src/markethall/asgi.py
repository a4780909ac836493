"""The application for any ASGI server: `uvicorn markethall.asgi:app`.

Only `markethall serve` limits the time and size of request headers, runs migrations and starts the
embedded Postgres.
"""

from markethall.app import create_app
from markethall.settings import read_settings
from markethall.shared.observability import log

settings = read_settings()
log.configure(settings.log_format, settings.log_level)
app = create_app(settings)
