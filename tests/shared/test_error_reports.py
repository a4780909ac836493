"""Test the reports to Sentry, with the transport of its SDK replaced, as its documents describe."""

import json
from typing import Any

import pytest
import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from markethall.shared.observability import error_reports as module
from markethall.shared.observability.error_reports import ErrorReports, ErrorReportsError

DSN = "http://key@127.0.0.1:9/1"
CARD = "4111 1111 1111 1111"


class RecordingTransport(Transport):
    """Keeps the reports instead of sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.reports.append(event)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> RecordingTransport:
    monkeypatch.setenv("SENTRY_DSN", DSN)
    return RecordingTransport()


@pytest.fixture
def log(transport: RecordingTransport) -> Any:
    reports = ErrorReports()
    reports.start("1.2.3", transport)
    yield structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[structlog.stdlib.add_log_level, reports, lambda *_: ""],
    )
    # an SDK that stays active would add headers to the requests of all later tests
    sentry_sdk.get_global_scope().set_client(None)


def fail(text: str) -> None:
    password = "hunter2 and more"  # noqa: F841 - a local variable must not be in the report
    raise ValueError(text)


def test_exception_is_reported_with_its_traceback_and_fields(
    log: Any, transport: RecordingTransport
) -> None:
    try:
        fail("it broke")
    except ValueError:
        log.exception("request.failed", request_id="r1", path="/orders")

    (report,) = transport.reports
    error = report["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("ValueError", "it broke")
    assert error["stacktrace"]["frames"][-1]["function"] == "fail"
    assert report["tags"]["event"] == "request.failed"
    assert report["extra"]["request_id"] == "r1"
    assert report["release"] == "markethall@1.2.3"


def test_error_without_exception_is_reported(log: Any, transport: RecordingTransport) -> None:
    log.error("webhook.dead", provider="stripe")

    (report,) = transport.reports
    assert (report["message"], report["level"]) == ("webhook.dead", "error")


def test_warnings_are_not_reported(log: Any, transport: RecordingTransport) -> None:
    log.warning("worker.unavailable", context="orders")

    assert transport.reports == []


def test_secrets_and_card_numbers_are_redacted(log: Any, transport: RecordingTransport) -> None:
    try:
        fail(f"password=hunter2 for card {CARD}")
    except ValueError:
        log.exception(
            "request.failed", api_key="k-123", text=f"paid with {CARD}", nested={"token": "t-456"}
        )

    text = json.dumps(transport.reports, default=str)
    assert len(transport.reports) == 1
    for secret in ("hunter2", CARD, CARD.replace(" ", ""), "k-123", "t-456"):
        assert secret not in text


def test_nothing_is_reported_without_a_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    reports, transport = ErrorReports(), RecordingTransport()

    reports.start("1.2.3", transport)
    reports(None, "", {"event": "request.failed", "level": "error"})

    assert transport.reports == []


def test_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SENTRY_DSN", DSN)
    monkeypatch.setattr(module, "find_spec", lambda _: None)

    with pytest.raises(ErrorReportsError, match=r"pip install 'markethall\[sentry\]'"):
        ErrorReports().start("1.2.3")
