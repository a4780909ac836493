"""Log lines for people in a terminal: plain text, the important parts first."""

import json
import shutil
import time
from http import HTTPStatus
from typing import Any, Final

from structlog.typing import EventDict, WrappedLogger

# the width of a request line if the output is not a terminal, in characters
_FALLBACK_WIDTH: Final = 120
_WIDTH_WITH_REQUEST_ID: Final = 110
_RED, _YELLOW, _DIM, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
_LEVEL_COLORS: Final = {"warning": _YELLOW, "error": _RED, "critical": _RED}


class ConsoleRenderer:
    """structlog processor: time, level, event and fields as `name=value`, then the traceback."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        moment = str(event.pop("timestamp", ""))[11:19]
        level, name = str(event.pop("level", "info")), plain_text(event.pop("event", ""))
        traces = [str(event.pop(key)) for key in ("exception", "stack") if event.get(key)]
        fields = [f"{key}={_field_text(value)}" for key, value in event.items()]
        head = paint(f"{level:7}", _LEVEL_COLORS.get(level, ""), colors=self._colors)
        line = " ".join([moment, head, name, *fields])
        return "\n".join([line, *map(_without_control_codes, traces)])


def request_line(fields: dict[str, Any], *, colors: bool) -> str:
    """Return the line of one request, which fits into one line of the terminal.

    It shows time, status, method, path and duration, and in a wide terminal the request id.
    """
    width = shutil.get_terminal_size((_FALLBACK_WIDTH, 24)).columns
    status = fields["status"]
    head = (
        f"{time.strftime('%H:%M:%S', time.gmtime())} {status} {plain_text(fields['method'][:7]):6} "
    )
    tail = f" {fields['duration_ms']:6.0f} ms"
    if width >= _WIDTH_WITH_REQUEST_ID:
        tail += f"  {plain_text(fields['request_id'])}"
    # one column is left free, because some terminals wrap a line that fills all columns
    room = max(width - len(head) - len(tail) - 1, 1)
    line = f"{head}{_shortened(plain_text(fields['path']), room):{room}}{tail}"
    return paint(line, _status_color(status), colors=colors)


def plain_text(value: object) -> str:
    """Return the value as text. Line breaks and terminal control codes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(value)
    )


def paint(text: str, color: str, *, colors: bool) -> str:
    return f"{color}{text}{_RESET}" if colors and color else text


def _field_text(value: object) -> str:
    if isinstance(value, str) and value and " " not in value:
        return plain_text(value)
    return plain_text(json.dumps(value, default=str, ensure_ascii=False))


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _status_color(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _RED
    return _YELLOW if status >= HTTPStatus.BAD_REQUEST else ""


def _without_control_codes(text: str) -> str:
    return "\n".join(plain_text(line) for line in text.split("\n"))
