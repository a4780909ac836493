"""Reports of errors to Sentry, or to a service that understands its protocol.

Reports are off unless SENTRY_DSN is set. The SDK reads that variable, SENTRY_ENVIRONMENT and
SENTRY_RELEASE by itself. A report has the log event, its redacted fields and the traceback, without
the values of local variables, and without requests.
"""

import os
import sys
from importlib.util import find_spec
from typing import Any, Final

from structlog.typing import EventDict, WrappedLogger

from markethall.shared.observability.log import redact, redact_event

MISSING_EXTRA: Final = "SENTRY_DSN: reports need another package: pip install 'markethall[sentry]'"
_LEVELS: Final = frozenset({"error", "critical"})
_OWN_FIELDS: Final = frozenset({"event", "level", "timestamp", "exc_info"})
_Report = dict[str, Any]


class ErrorReportsError(Exception):
    """The environment asks for reports that this process cannot send. The text says why."""


class ErrorReports:
    """Sends the log events of level error. There is one object, because the SDK is global."""

    def __init__(self) -> None:
        self._is_on = False

    def start(self, release: str, transport: Any = None) -> None:
        """Start the SDK if SENTRY_DSN is set. `transport` is for tests.

        Raises ErrorReportsError.
        """
        if not os.environ.get("SENTRY_DSN"):
            return
        if find_spec("sentry_sdk") is None:
            raise ErrorReportsError(MISSING_EXTRA)
        import sentry_sdk

        sentry_sdk.init(
            release=os.environ.get("SENTRY_RELEASE", f"markethall@{release}"),
            # the log events are the reports, so the SDK must not look for errors itself
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            before_send=scrub,
            transport=transport,
        )
        self._is_on = True

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """structlog processor: report an event of level error."""
        if self._is_on and event.get("level") in _LEVELS:
            _report(event)
        return event

    def flush(self) -> None:
        """Send the reports that wait. Call this when the process stops."""
        if self._is_on:
            import sentry_sdk

            sentry_sdk.flush(timeout=2)


error_reports: Final = ErrorReports()


def _report(event: EventDict) -> None:
    import sentry_sdk

    name = str(event["event"])
    fields = {key: value for key, value in event.items() if key not in _OWN_FIELDS}
    with sentry_sdk.new_scope() as scope:
        scope.set_level(event["level"])
        scope.set_tag("event", name)
        for key, value in redact_event(None, "", fields).items():
            scope.set_extra(key, value)
        error = _error_of(event.get("exc_info"))
        if error is None:
            scope.capture_message(name)
        else:
            scope.capture_exception(error)


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error: BaseException | None = exc_info[1]
        return error
    return sys.exception() if exc_info else None


def scrub(report: _Report, _: object = None) -> _Report:
    """Redact all texts of a report: passwords, tokens, keys and card numbers."""
    return {name: _scrub(value) for name, value in report.items()}


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _scrub(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(item) for item in value]
    return value
