import re
from html.parser import HTMLParser
from typing import Final

_BLOCK_TAGS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption",
     "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "ol", "p", "pre",
     "section", "table", "td", "th", "tr", "ul"}
)  # fmt: skip
_HIDDEN_TAGS: Final = frozenset({"script", "style", "template"})
_WHITESPACE: Final = re.compile(r"[ \t\r\f\v\n\xa0]+")
_MARKUP: Final = re.compile(r"[<&]")


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._hidden_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden_depth += tag in _HIDDEN_TAGS
        self._start_line_before_block(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden_depth = max(0, self._hidden_depth - (tag in _HIDDEN_TAGS))
        self._start_line_before_block(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden_depth:
            self.lines[-1] += data

    def _start_line_before_block(self, tag: str) -> None:
        if tag in _BLOCK_TAGS:
            self.lines.append("")


def html_to_text(html: str) -> str:
    """Convert blocks to lines and entities to characters. Remove scripts and styles."""
    if not _MARKUP.search(html):
        return html.strip()
    extractor = _TextExtractor()
    extractor.feed(html)
    extractor.close()
    lines = (_WHITESPACE.sub(" ", line).strip() for line in extractor.lines)
    return "\n".join(line for line in lines if line)
