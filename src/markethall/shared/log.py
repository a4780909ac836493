"""Logging: one JSON object per line on stdout, or colours in a terminal. Never a secret."""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final, TextIO

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

# characters of what a client sent, in a line
LONGEST_PATH: Final = 2000
# part of a key: its value is never written
_SECRET: Final = re.compile(
    "passw|secret|token|authorization|cookie|api_?key|signing_key|private|credential",
    re.IGNORECASE,
)
# in running text: user:password@ in an address, a bearer token, a JWT, password=… and its like
_LEAKS: Final = (
    (re.compile(r"(?<=://)[^\s/?#'\"]*@"), "***@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    # bounded, and not tried again inside what it has looked at: a text of many eyJ costs its length
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
# what every leak has in it: most texts need no closer look
_SUSPECT: Final = re.compile(r"://|bearer|basic|eyJ|passw|secret|token", re.IGNORECASE)
# made once: json.dumps with options makes one for each call
_ENCODE: Final = JSONEncoder(default=repr, separators=(",", ":")).encode


class Access:
    """Writes the access lines. Every request has one, so as JSON it takes the shortest way: the
    same shape as structlog's lines, and one write for all requests that are answered in the same
    turn of the event loop. Its texts must be clean already.
    """

    def __init__(self) -> None:
        self._pretty: Any = structlog.get_logger("markethall.access")
        self._stream: TextIO | None = None
        self._silent = False
        self._lines: list[bytes] = []

    def configure(self, *, pretty: bool, level: str) -> None:
        self._silent = logging.getLevelNamesMapping()[level.upper()] > logging.INFO
        self._stream = None if pretty else sys.stdout

    def write(self, **fields: Any) -> None:
        if self._stream is None:
            self._pretty.info("request", cleaned=True, **fields)
        elif not self._silent:
            self._keep(fields)

    def _keep(self, fields: dict[str, Any]) -> None:
        fields["event"] = "request"
        fields["level"] = "info"
        fields["timestamp"] = _timestamp()
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(to_json(fields))

    def _flush(self) -> None:
        text = b"\n".join(self._lines).decode()
        self._lines.clear()
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()


access: Final = Access()


@lru_cache(maxsize=1024)
def agent_text(header: bytes) -> str:
    """Of a User-Agent, as it may be written."""
    return clean_text(header.decode("latin-1"))


def _timestamp() -> str:
    now = time.time()
    return f"{_second(int(now))}.{int(now % 1 * 1_000_000):06d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def configure(style: str, level: str) -> None:
    """For the whole process: structlog, and the standard library's loggers through it."""
    pretty = style == "pretty" or (style == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_rendering(pretty=pretty)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    access.configure(pretty=pretty, level=level)
    _take_over_standard_logging(shared, level, pretty=pretty)


def _rendering(*, pretty: bool) -> list[Processor]:
    """Tracebacks become text first, since they are searched for secrets too."""
    if pretty:
        # quoted, so that what a client sent can neither begin a line nor colour one
        last: Processor = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            repr_native_str=True,
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        last = structlog.processors.JSONRenderer(serializer=lambda event, **_: _ENCODE(event))
    return [structlog.processors.format_exc_info, without_secrets, last]


def _take_over_standard_logging(shared: list[Processor], level: str, *, pretty: bool) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(pretty=pretty),
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
    for name in ("uvicorn.error", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Whatever is called like a secret is one, at any depth; and what looks like one in a text.

    `cleaned=True` says that the writer of the line has seen to it: the access line does.
    """
    if event.pop("cleaned", False):
        return event
    for name, value in event.items():
        event[name] = "***" if _is_secret(name) else _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {
            name: "***" if _is_secret(str(name)) else _clean(item) for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    return clean_text(repr(value))


def clean_text(text: str) -> str:
    """Without what looks like a password, a token or a key."""
    if _SUSPECT.search(text):
        for leak, instead in _LEAKS:
            text = leak.sub(instead, text)
    return text


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)
