"""Test that each log line is one JSON object without secrets."""

import asyncio
import io
import json
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from typing import Any

import pytest

from markethall.shared.observability.console import request_line
from markethall.shared.observability.log import AccessLog, redact, redact_event

SECRETS = (
    "hunter2-the-password",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl",
    "mh_live_0123456789abcdef",
)
PASSWORD, JWT, API_KEY = SECRETS

REQUEST: dict[str, Any] = {
    "method": "DELETE",
    "path": "/orders/1",
    "status": 503,
    "duration_ms": 1234.4,
    "request_id": "01a2293f-87ab-7651-bd94-f8adc13c2b11",
}

# run in a subprocess, because logging is configured only once per process
LOGGING = textwrap.dedent(
    """
    import logging, sys
    import structlog
    from markethall.shared.observability.log import configure
    from pydantic import SecretStr

    configure(sys.argv[1], "info")
    log = structlog.get_logger("probe")
    PASSWORD, JWT, API_KEY = sys.argv[2:5]
    DSN = f"postgresql+asyncpg://market:{PASSWORD}@db:5432/shop"
    """
)


def lines_of(code: str, style: str = "json") -> list[str]:
    completed = subprocess.run(
        [sys.executable, "-c", LOGGING + textwrap.dedent(code), style, *SECRETS],
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONPATH": "src", "PATH": "/usr/bin:/bin"},
    )
    assert completed.stderr == ""
    return completed.stdout.splitlines()


def entries_of(code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(code)]


def test_line_is_json_object_with_time_and_level() -> None:
    (entry,) = entries_of('log.info("request", path="/things", status=200, ok=True, none=None)')

    assert entry["event"] == "request"
    assert entry["level"] == "info"
    assert (entry["path"], entry["status"], entry["ok"], entry["none"]) == (
        "/things",
        200,
        True,
        None,
    )
    assert entry["timestamp"].endswith("Z")


def test_control_characters_are_escaped() -> None:
    entries = entries_of(
        r"""
        log.info("request", path="/a\n{\"event\": \"forged\"}", agent="\x1b[31mred\r\n\x00\u2028")
        logging.getLogger("library").warning("first\nsecond: %s", "a\nb")
        """
    )

    assert [entry["event"] for entry in entries] == ["request", "first\nsecond: a\nb"]


def test_exception_is_part_of_line() -> None:
    structlog_entry, library = entries_of(
        """
        for log_error in (log.exception, logging.getLogger("library").exception):
            try:
                1 / 0
            except ZeroDivisionError:
                log_error("failed")
        """
    )

    assert "ZeroDivisionError" in structlog_entry["exception"]
    assert "ZeroDivisionError" in library["exception"]


def test_non_json_values_are_written_as_text() -> None:
    (entry,) = entries_of(
        r"""
        import datetime, uuid
        log.info("odd", when=datetime.datetime(2026, 1, 1), id=uuid.UUID(int=1), raw=b"\xff",
                 several={1, 2}, lone="\ud800", nested={5: [uuid.UUID(int=2)]}, nan=float("nan"))
        """
    )

    assert "00000000-0000-0000-0000-000000000001" in entry["id"]
    assert sorted(entry["several"]) == [1, 2]


def test_lines_below_level_are_not_written() -> None:
    entries = entries_of(
        """
        log.debug("no")
        logging.getLogger("library").debug("no")
        log.info("yes")
        """
    )

    assert [entry["event"] for entry in entries] == ["yes"]


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_card_numbers_are_redacted_everywhere(style: str) -> None:
    lines = lines_of(
        r"""
        CARD, SPACED = "4111111111111111", "3782 822463 10005"
        log.info("x", text=f"paid with {CARD}", number=int(CARD), raw=CARD.encode(), exact=4.2)
        log.info("x", nested={CARD: [SPACED, {"deep": (int(CARD),)}]}, error=ValueError(CARD))
        log.info(f"event {SPACED}")
        logging.getLogger("library").warning("got %s and %s", SPACED, int(CARD))
        for log_error in (log.exception, logging.getLogger("library").exception):
            try:
                raise KeyError(CARD) from ValueError(SPACED)
            except KeyError:
                log_error("failed with 4111-1111-1111-1111")
        """,
        style,
    )

    text = "\n".join(lines)
    assert "***" in text
    assert "KeyError" in text
    for number in ("4111", "3782", "10005", "1111-1111"):
        assert number not in text.replace("4.2", "")


STATEMENTS_WITH_SECRETS = (
    'log.info("x", password=PASSWORD, access_token=JWT, api_key=API_KEY)',
    'log.info("x", current_password=PASSWORD, Authorization="Bearer " + JWT)',
    'log.info("x", passwd=PASSWORD, client_secret=PASSWORD, cookie=PASSWORD, apiKey=API_KEY)',
    'log.info("x", body={"user": {"password": PASSWORD, "tokens": [JWT]}})',
    'log.info("x", rows=[{"password": PASSWORD}, ({"secret": PASSWORD},)])',
    'log.info("x", headers={"authorization": "Bearer " + JWT, "set-cookie": PASSWORD})',
    'log.info("x", url=DSN, urls=[DSN], nested={"deep": {"dsn": DSN}})',
    'log.info(f"connecting to {DSN}")',
    'log.info("x", header=f"Bearer {JWT}", header2=f"bearer {API_KEY}", text=f"got {JWT}!")',
    'log.info("x", query=f"a=1&password={PASSWORD}&b=2", fields=f"password: {PASSWORD}")',
    'log.info("x", settings=SecretStr(PASSWORD))',
    'log.info("x", error=ValueError(f"cannot reach {DSN}"))',
    """
        try:
            raise ConnectionError(f"cannot reach {DSN} with Bearer {JWT}")
        except ConnectionError:
            log.exception("failed")
            logging.getLogger("library").exception("failed at %s", DSN)
        """,
    """
        try:
            (lambda password: 1 / 0)(PASSWORD)
        except ZeroDivisionError:
            log.exception("locals are not logged")
        """,
    'logging.getLogger("library").warning("at %s", DSN)',
    'logging.getLogger("library").warning("sent %s", {"password": PASSWORD})',
    'logging.getLogger("uvicorn.error").error("bad header: Bearer %s", JWT)',
    'structlog.contextvars.bind_contextvars(token=JWT, place=DSN); log.info("x")',
)


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_no_secret_is_logged(style: str) -> None:
    # one subprocess for all statements, because starting it is slow
    code = "\n".join(textwrap.dedent(code) for code in STATEMENTS_WITH_SECRETS)

    lines = lines_of(code, style)

    assert len(lines) >= len(STATEMENTS_WITH_SECRETS)
    leaked = [line for line in lines for secret in SECRETS if secret in line]
    assert leaked == []


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_only_texts_that_are_marked_are_not_redacted(style: str) -> None:
    (line,) = lines_of(
        """
        from markethall.shared.observability.log import UnredactedText

        link = f"http://shop.example/order.html#order_token={JWT}"
        log.info("x", link=UnredactedText(link), other=link)
        """,
        style,
    )

    assert line.count(f"http://shop.example/order.html#order_token={JWT}") == 1
    assert line.count("http://shop.example/order.html#order_token=***") == 1


def test_http_client_library_does_not_log() -> None:
    code = 'logging.getLogger("httpx2").info("HTTP Request"); logging.getLogger("other").info("x")'

    lines = lines_of(code, "json")

    assert len(lines) == 1
    assert '"logger":"other"' in lines[0]


def test_console_log_escapes_client_input() -> None:
    lines = lines_of(
        r'log.info("request", path="/a\n[info] forged", agent="\x1b[31mred")', "pretty"
    )

    assert len(lines) == 1
    assert "\x1b[31mred" not in lines[0]


@pytest.mark.parametrize("width", [40, 80, 120, 300])
@pytest.mark.parametrize("path", ["/orders", "/products/" + "x" * 500, "/a\n[info] \x1b[31mred"])
def test_request_fits_one_line_of_the_terminal(
    width: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    line = request_line({**REQUEST, "path": path}, colors=False)

    assert len(line) < width
    assert line.isprintable()
    assert line[8:].startswith(" 503 DELETE /")
    assert ("01a2293f-87ab-7651-bd94-f8adc13c2b11" in line) == (width >= 120)


def test_request_line_shows_status_method_and_path_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    line = request_line({**REQUEST, "status": 200}, colors=True)

    assert line[8:].startswith(" 200 DELETE /orders/1 ")
    assert line.endswith("   1234 ms")
    assert len(line) == 59


def test_console_line_has_no_python_reprs() -> None:
    statement = """
    log.warning("order.expiry_failed", error="no answer", context="orders", count=3,
                off=None, names=["a", "b"], empty="")
    """

    (line,) = lines_of(statement, "pretty")

    assert line[8:] == (
        ' warning order.expiry_failed error="no answer" context=orders count=3 '
        'off=null names=["a", "b"] empty=""'
    )


def test_console_traceback_follows_its_line() -> None:
    lines = lines_of("try: 1 / 0\nexcept ZeroDivisionError: log.exception('failed', n=1)", "pretty")

    assert lines[0][8:] == " error   failed n=1"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://u:p@ss@h/d", "postgresql://***@h/d"),
        ("redis://:p@h:1 and amqp://x:y@z", "redis://***@h:1 and amqp://***@z"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("mail ada@example.com", "mail ada@example.com"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ('{"password": "x y"}', '{"password": ***}'),
        ("the password was wrong", "the password was wrong"),
        ("POST /token", "POST /token"),
    ],
)
def test_only_secret_patterns_are_redacted(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_secret_named_value_is_redacted() -> None:
    for value in ("x", 5, None, ["x"], {"a": "x"}):
        assert redact_event(None, "info", {"refresh_token": value}) == {"refresh_token": "***"}


def test_redaction_of_long_text_is_fast() -> None:
    for text in ("password" * 50_000, "a" * 500_000 + "token", "://" * 200_000, "bearer " * 80_000):
        redact(text)


def test_access_log_writes_the_lines_of_a_closed_event_loop_later() -> None:
    output, access_log = io.StringIO(), AccessLog()
    with redirect_stdout(output):
        access_log.configure(pretty=False, level="info")

    async def write(path: str) -> None:
        access_log.write(path=path)

    async def write_and_wait(path: str) -> None:
        access_log.write(path=path)
        async with asyncio.timeout(30):
            while not output.getvalue():
                await asyncio.sleep(0.001)

    asyncio.run(write("/first"))
    assert output.getvalue() == ""
    asyncio.run(write_and_wait("/second"))

    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [line["path"] for line in lines] == ["/first", "/second"]
