"""Logging: one JSON object per line on stdout, or colours in a terminal. Never a secret."""

import logging
import re
import sys
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# part of a key: its value is never written
_SECRET: Final = re.compile(
    "password|secret|token|authorization|cookie|api_key|signing_key|private", re.IGNORECASE
)
# user:password@ in an address
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")
# made once: json.dumps with options makes one for each call
_ENCODE: Final = JSONEncoder(default=repr, separators=(",", ":")).encode


def configure(style: str, level: str) -> None:
    """For the whole process: structlog, and the standard library's loggers through it."""
    pretty = style == "pretty" or (style == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, *_rendering(pretty=pretty)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    _take_over_standard_logging(shared, level, pretty=pretty)


def _rendering(*, pretty: bool) -> list[Processor]:
    if pretty:
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    as_json = structlog.processors.JSONRenderer(serializer=lambda event, **_: _ENCODE(event))
    return [structlog.processors.format_exc_info, as_json]


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
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Whatever is called like a secret is one; passwords inside addresses too."""
    for name, value in event.items():
        if _is_secret(name):
            event[name] = "***"
        elif isinstance(value, str) and "://" in value:
            event[name] = _CREDENTIALS.sub("***@", value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)
