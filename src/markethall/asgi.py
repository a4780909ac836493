"""The application for any ASGI server: `uvicorn markethall.asgi:app`.

Another server does not do what `markethall serve` does: limit the time and size of request headers,
run migrations in development, and start the embedded Postgres.
"""

from markethall.app import create_app
from markethall.settings import load_environment_files, read_settings
from markethall.shared.observability import log

load_environment_files()
settings = read_settings()
log.configure(settings.log_format, settings.log_level)
app = create_app(settings)
