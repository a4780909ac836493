"""The application for any ASGI server: `uvicorn markethall.asgi:app`.

`markethall serve` adds limits for the head of a request, migrations and the embedded Postgres.
"""

from markethall.app import create_app
from markethall.settings import read_settings
from markethall.shared.observability import log

settings = read_settings()
log.configure(settings.log_format, settings.log_level)
app = create_app(settings)
