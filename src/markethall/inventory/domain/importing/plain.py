"""What a description in HTML says, without the HTML."""

import re
from html.parser import HTMLParser
from typing import Final

_BLOCKS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption",
     "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "ol", "p", "pre",
     "section", "table", "td", "th", "tr", "ul"}
)  # fmt: skip
_UNSEEN: Final = frozenset({"script", "style", "template"})
_SPACES: Final = re.compile(r"[ \t\r\f\v\n\xa0]+")
_MARKUP: Final = re.compile(r"[<&]")


class _Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - HTMLParser
        self._unseen += tag in _UNSEEN
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.lines[-1] += data

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.lines.append("")


def plain_text(html: str) -> str:
    """Blocks become lines, entities characters; scripts and styles are no text."""
    if not _MARKUP.search(html):
        return html.strip()
    reading = _Reading()
    reading.feed(html)
    reading.close()
    lines = (_SPACES.sub(" ", line).strip() for line in reading.lines)
    return "\n".join(line for line in lines if line)
