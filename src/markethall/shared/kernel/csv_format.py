"""Rows of CSV files (RFC 4180) whose cells a spreadsheet does not run as formulas.

A spreadsheet runs a cell as a formula if it begins with = + - @, a tab or the end of a line; some
do so for the full-width forms of the four signs, too (OWASP, "CSV Injection"). So an export puts an
apostrophe before such a text, and an import removes it. If a text begins with apostrophes and then
one of these characters, the export adds one more apostrophe, and the import removes it. So an
exported value is imported unchanged.
"""

import re
from collections.abc import Sequence
from typing import Final

_FIRST_CHARACTERS: Final = r"=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_FORMULA_START: Final = re.compile(f"'*[{_FIRST_CHARACTERS}]")
_ESCAPED_FORMULA_START: Final = re.compile(f"''*[{_FIRST_CHARACTERS}]")
_NEEDS_QUOTES: Final = re.compile(r'[",\r\n]')


def escape_formula(text: str) -> str:
    return f"'{text}" if _FORMULA_START.match(text) else text


def unescape_formula(text: str) -> str:
    return text[1:] if _ESCAPED_FORMULA_START.match(text) else text


def format_csv_row(cells: Sequence[str]) -> str:
    """Join the cells to a row, and quote them where necessary (RFC 4180)."""
    quoted = (
        f'"{c.replace(chr(34), chr(34) * 2)}"' if _NEEDS_QUOTES.search(c) else c for c in cells
    )
    return ",".join(quoted) + "\r\n"
