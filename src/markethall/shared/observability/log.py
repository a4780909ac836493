"""Logging: JSON lines on stdout, or coloured text in a terminal. Secrets are redacted."""

import asyncio
import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final, TextIO

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

from markethall.shared.kernel.card_numbers import (
    is_card_number_value,
    may_contain_card_number,
    redact_card_numbers,
)
from markethall.shared.kernel.clock import utc_now
from markethall.shared.observability.console import ConsoleRenderer, request_line

# in characters; longer paths are cut in the access log
MAX_PATH_LENGTH: Final = 2000
# a write for each request would take a tenth of the processor time of a cached read
_FLUSH_SECONDS: Final = 0.01
# a field whose name contains one of these is redacted
_SECRET_NAME: Final = re.compile(
    "passw|secret|token|authorization|cookie|api_?key|signing_key|private|credential",
    re.IGNORECASE,
)
# secrets within texts: user:password@ in a URL, bearer tokens, JWTs, assignments like password=x
_SECRET_PATTERNS: Final = (
    (re.compile(r"(?<=://)[^\s/?#'\"]*@"), "***@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    # keys of payment providers, and the secrets with which a browser confirms one payment
    (re.compile(r"\b(?:[sr]k_(?:live|test)|whsec|pi_\w+_secret)_\w+"), "***"),
    # a JWT; the bounded quantifiers keep the time linear for a text with many "eyJ"
    (re.compile(r"(?<![\w-])eyJ[\w-]{5,2000}\.[\w-]{1,8000}\.[\w-]{0,2000}"), "***"),
    (
        re.compile(
            r"\b(passw\w*|\w*secret|\w*token)(['\"]?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        r"\1\2***",
    ),
)
# Every text that a pattern matches contains one of these after casefold(). Most texts contain none
# of them, so the slower patterns are skipped.
_SECRET_HINTS: Final = (
    "://", "bearer", "basic", "eyj", "passw", "secret", "token", "whsec_", "k_live_", "k_test_",
)  # fmt: skip
# built once, because json.dumps with options builds a new encoder for every call
_encode_json: Final = JSONEncoder(default=repr, separators=(",", ":")).encode


class UnredactedText(str):
    """A text that is logged as it is, such as a link that developers open from the log."""

    __slots__ = ()


class AccessLog:
    """Writes one line per request to the log.

    For speed, JSON lines bypass structlog, and the lines of ten milliseconds are written together.
    These lines have the same fields as those of structlog. The caller must redact secrets.
    """

    def __init__(self) -> None:
        self._stream: TextIO = sys.stdout
        self._is_pretty = False
        self._is_disabled = False
        self._lines: list[bytes] = []
        # the event loop that will call `flush`; None if there are no lines
        self._loop: asyncio.AbstractEventLoop | None = None

    def configure(self, *, pretty: bool, level: str) -> None:
        self.flush()
        self._is_disabled = logging.getLevelNamesMapping()[level.upper()] > logging.INFO
        self._stream = sys.stdout
        self._is_pretty = pretty

    def write(self, **fields: Any) -> None:
        if self._is_disabled:
            return
        if self._is_pretty:
            self._stream.write(request_line(fields, colors=self._stream.isatty()) + "\n")
            self._stream.flush()
        else:
            self._append_fields(fields)

    def _append_fields(self, fields: dict[str, Any]) -> None:
        fields["event"] = "request"
        fields["level"] = "info"
        # to_json writes it as structlog does, with microseconds and "Z"
        fields["timestamp"] = utc_now()
        self._lines.append(to_json(fields))
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # an earlier loop may have been closed before its flush
            self._loop = loop
            loop.call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the lines that are not written yet."""
        self._loop = None
        if self._lines:
            text = b"\n".join(self._lines).decode()
            self._lines.clear()
            self._stream.write(text + "\n")
            self._stream.flush()


access_log: Final = AccessLog()


@lru_cache(maxsize=1024)
def path_text(path: str) -> str:
    """Return the path of a request as redacted text."""
    return redact(path)


@lru_cache(maxsize=1024)
def user_agent_text(header: bytes) -> str:
    """Return a User-Agent header as redacted text."""
    return redact(header.decode("latin-1"))


def configure(style: str, level: str) -> None:
    """Configure structlog and the standard library's loggers for the whole process."""
    pretty = style == "pretty" or (style == "auto" and sys.stdout.isatty())
    common_processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*common_processors, *_renderers(pretty=pretty)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    access_log.configure(pretty=pretty, level=level)
    _configure_standard_logging(common_processors, level, pretty=pretty)


def _renderers(*, pretty: bool) -> list[Processor]:
    """Return the processors at the end of the structlog chain.

    Error reports need the exception, so they come first. Tracebacks are converted to text before
    the redaction, so that they are redacted too.
    """
    # imported here, because it uses the redaction of this module
    from markethall.shared.observability.error_reports import error_reports

    if pretty:
        renderer: Processor = ConsoleRenderer(colors=sys.stdout.isatty())
    else:
        renderer = structlog.processors.JSONRenderer(
            serializer=lambda event, **_: _encode_json(event)
        )
    return [error_reports, structlog.processors.format_exc_info, redact_event, renderer]


def _configure_standard_logging(
    common_processors: list[Processor], level: str, *, pretty: bool
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common_processors],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(pretty=pretty),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.getLevelNamesMapping()[level.upper()], logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"
    for name in ("uvicorn.error", "httpx2", "stripe"):
        logging.getLogger(name).setLevel(logging.WARNING)


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """structlog processor: redact fields with the name of a secret, and secrets within texts."""
    for name, value in event.items():
        event[name] = "***" if _is_secret(name) else _redact_value(value)
    return event


def _redact_value(value: Any) -> Any:
    if isinstance(value, UnredactedText):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(str(name)): "***" if _is_secret(str(name)) else _redact_value(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(item) for item in value]
    if isinstance(value, int | float):
        return "***" if is_card_number_value(value) else value
    if value is None:
        return value
    return redact(repr(value))


def redact(text: str) -> str:
    """Replace passwords, tokens, keys and card numbers in a text."""
    if may_contain_card_number(text):
        text = redact_card_numbers(text)
    folded = text.casefold()
    for hint in _SECRET_HINTS:
        if hint in folded:
            return _replace_secrets(text)
    return text


def _replace_secrets(text: str) -> str:
    for pattern, replacement in _SECRET_PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name))


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)
