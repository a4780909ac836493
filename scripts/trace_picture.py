"""Draw a trace as SVG, from the spans that tests/tracing/test_split_trace.py has collected.

MARKETHALL_TEST_TRACE_FILE=spans.json .venv/bin/python -m pytest tests/tracing
.venv/bin/python -m scripts.trace_picture spans.json docs/trace.svg
"""

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

Span = dict[str, Any]
_ROW, _TOP, _LEFT, _WIDTH = 17, 76, 390, 780
_COLORS: Final = {
    "orders": "#2f6fb3",
    "inventory": "#3a8a4d",
    "payments": "#b3632f",
    "users": "#7b4fa3",
}
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.s{fill:#666}.t{font-size:15px;font-weight:bold}"
    "line{stroke:#ddd}"
)


def picture(spans: list[Span]) -> str:
    """Return the picture: a line for each span, indented below its parent."""
    rows = list(_ordered(spans, _roots(spans), depth=0))
    begin, end = min(s["start"] for s in spans), max(s["end"] for s in spans)
    height = _TOP + len(rows) * _ROW + 16
    size = f'width="{_LEFT + _WIDTH + 90}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        '<text class="t" x="12" y="24">One purchase through four services: one trace</text>',
        *_legend(),
        *_time_axis(begin, end, height),
    ]
    for position, (span, depth) in enumerate(rows):
        lines += _bar(span, depth, _TOP + position * _ROW, begin, end)
    return "\n".join([*lines, "</svg>", ""])


def _roots(spans: list[Span]) -> list[Span]:
    ids = {span["span_id"] for span in spans}
    return [span for span in spans if span["parent_id"] not in ids]


def _ordered(spans: list[Span], level: list[Span], depth: int) -> Iterator[tuple[Span, int]]:
    """Yield each span before the spans below it, with its depth."""
    for span in sorted(level, key=lambda each: each["start"]):
        yield span, depth
        below = [each for each in spans if each["parent_id"] == span["span_id"]]
        yield from _ordered(spans, below, depth + 1)


def _legend() -> Iterator[str]:
    for position, (service, color) in enumerate(_COLORS.items()):
        left = 12 + position * 100
        yield f'<rect x="{left}" y="38" width="12" height="12" fill="{color}"/>'
        yield f'<text x="{left + 18}" y="48">{service}</text>'
    yield '<rect x="412" y="38" width="12" height="12" fill="#fff" stroke="#444"/>'
    yield '<text x="430" y="48">Postgres or Redis</text>'


def _time_axis(begin: int, end: int, height: int) -> Iterator[str]:
    for part in range(5):
        left = _LEFT + part * _WIDTH / 4
        milliseconds = (end - begin) * part / 4 / 1e6
        yield f'<line x1="{left}" y1="{_TOP - 8}" x2="{left}" y2="{height - 8}"/>'
        yield f'<text class="s" x="{left - 4}" y="{_TOP - 12}">{milliseconds:.0f} ms</text>'


def _bar(span: Span, depth: int, top: int, begin: int, end: int) -> Iterator[str]:
    service = span["service"].removeprefix("markethall-")
    color = _COLORS[service]
    scale = _WIDTH / (end - begin)
    left = _LEFT + (span["start"] - begin) * scale
    width = max(2.0, (span["end"] - span["start"]) * scale)
    is_storage = "db.system" in span["attributes"]
    fill = f'fill="#fff" stroke="{color}"' if is_storage else f'fill="{color}"'
    system = f" ({span['attributes']['db.system']})" if is_storage else ""
    milliseconds = (span["end"] - span["start"]) / 1e6
    yield f'<text x="{12 + depth * 14}" y="{top + 12}">{escape(span["name"] + system)}</text>'
    yield f'<rect x="{left:.1f}" y="{top + 2}" width="{width:.1f}" height="11" rx="2" {fill}/>'
    yield f'<text class="s" x="{left + width + 5:.1f}" y="{top + 12}">{milliseconds:.1f}</text>'


def main(source: str, target: str) -> None:
    Path(target).write_text(picture(json.loads(Path(source).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
