"""From bytes to records: a window on the file is cut into whole rows, whatever is in it.

A row ends where CSV (RFC 4180) or NDJSON says. Bytes that are no UTF-8 come through as lone
surrogates, which every text of ours refuses: so it is known which cell they are in.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from markethall.inventory.domain.importing.places import LONGEST, Flaw, Place, Record

BOM: Final = b"\xef\xbb\xbf"
# one cell may be nearly all of a row; the csv module knows only one limit for all its readers
csv.field_size_limit(LONGEST)

_TOO_LONG: Final = f"is longer than {LONGEST} bytes"
_UNCLOSED: Final = f"a quoted cell does not end, or is longer than {LONGEST} characters"


@dataclass(frozen=True)
class Window:
    """A piece of the file from a place on. `last`: it holds the file's end."""

    data: bytes
    place: Place
    last: bool


def ndjson_records(window: Window) -> Iterator[Record]:
    """One per line. An empty line has no cells, nor has what is left of one that is too long."""
    place = window.place
    for line in _lines(window, b"\n"):
        after = _behind(place, line)
        flaw = None if place.skipping else _too_long(place, line)
        text = "" if flaw or place.skipping else _decoded(line).strip()
        yield Record(place.line, len(line), [text] if text else [], after, flaw)
        place = after


def csv_records(window: Window, delimiter: str = ",") -> Iterator[Record]:
    """One per row, however many lines it takes."""
    lines = list(_lines(window, None))
    place, at = window.place, 0
    while at < len(lines):
        if place.skipping or len(lines[at]) > LONGEST:
            after = _behind(place, lines[at])
            flaw = None if place.skipping else _too_long(place, lines[at])
            yield Record(place.line, len(lines[at]), [], after, flaw)
            place, at = after, at + 1
            continue
        for found in _run(lines, at, place, delimiter):
            # None: its end is not in this window
            if found is None and not window.last and _size(lines, at) < LONGEST:
                return
            record = found or _unclosed(lines[at], place)
            yield record
            place = record.after
            if record.flaw:
                at += 1
                break
            at += record.after.line - record.line


def _run(lines: list[bytes], at: int, place: Place, delimiter: str) -> Iterator[Record | None]:
    """Rows until one is wrong; None for one that does not end."""
    taken = 0
    size = 0

    def feed() -> Iterator[str]:
        nonlocal taken, size
        for line in lines[at:]:
            if len(line) > LONGEST:
                return
            taken += 1
            size += len(line)
            yield _decoded(line)

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        begin, taken_before, size_before = place, taken, size
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _broken(lines, at + taken_before, begin, str(error))
            return
        place = Place(place.offset + size - size_before, place.line + taken - taken_before)
        yield Record(begin.line, size - size_before, cells, place)


def _broken(lines: list[bytes], at: int, place: Place, words: str) -> Record | None:
    """A row that csv refuses: we go on at its second line, so that one quote too many costs one
    row and not the file.
    """
    if "unexpected end" in words:
        return None
    code = "cell_too_long" if "field larger" in words else "quotes"
    message = _UNCLOSED if code == "cell_too_long" else "text stands behind a closing quote"
    flaw = Flaw(place.line, "", code, message)
    return Record(place.line, len(lines[at]), [], _behind(place, lines[at]), flaw)


def _unclosed(line: bytes, place: Place) -> Record:
    flaw = Flaw(place.line, "", "quotes", _UNCLOSED)
    return Record(place.line, len(line), [], _behind(place, line), flaw)


def _lines(window: Window, ends: bytes | None) -> Iterator[bytes]:
    """Whole lines, their ends included; of one that is too long, what there is of it."""
    data = window.data
    lines = data.splitlines(keepends=True) if ends is None else _split(data, ends)
    if lines and not window.last and not lines[-1].endswith(b"\n"):
        # perhaps half a line, or half an end of one
        half = lines.pop()
        if len(half) > LONGEST or (window.place.skipping and not lines):
            lines.append(half)
    yield from lines


def _split(data: bytes, ends: bytes) -> list[bytes]:
    lines = [line + ends for line in data.split(ends)]
    lines[-1] = lines[-1].removesuffix(ends)
    return lines if lines[-1] else lines[:-1]


def _behind(place: Place, line: bytes) -> Place:
    """A line of which the end is not seen goes on: it is too long."""
    ended = line.endswith((b"\n", b"\r"))
    return Place(place.offset + len(line), place.line + ended, skipping=not ended)


def _too_long(place: Place, line: bytes) -> Flaw | None:
    return Flaw(place.line, "", "row_too_long", _TOO_LONG) if len(line) > LONGEST else None


def _size(lines: list[bytes], at: int) -> int:
    return sum(len(line) for line in lines[at:])


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
