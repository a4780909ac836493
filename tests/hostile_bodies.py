"""Request bodies that are cheap to send, but expensive to parse or validate."""

from collections.abc import Callable, Sequence
from typing import Final

# A shape builds a body from the maximum size in bytes and the field names of the route.
Shape = Callable[[int, Sequence[str]], bytes]
_ID: Final = b'"0199c0de-0000-7000-8000-000000000001"'


def _repeat(part: bytes, size: int, start: bytes = b"", end: bytes = b"") -> bytes:
    """Return `start`, `part` and `end`, with `part` repeated as often as `size` bytes allow."""
    return start + part * ((size - len(start) - len(end)) // len(part)) + end


def _array(element: bytes, size: int) -> bytes:
    return _repeat(element + b",", size, b"[", element + b"]")


def _object(value: bytes, size: int, count: int | None = None) -> bytes:
    pair = b'"%07d":' + value
    fitting = (size - 2) // (len(value) + 11)
    count = fitting if count is None else min(count, fitting)
    return b"{" + b",".join([pair % number for number in range(count)]) + b"}"


def _each_field(build: Callable[[int], bytes]) -> Shape:
    """Return a shape in which each field of the route has the same value."""

    def shape(size: int, fields: Sequence[str]) -> bytes:
        share = size // len(fields) - 60
        pairs = [b'"%s":%s' % (name.encode(), build(share)) for name in fields]
        return b"{" + b",".join(pairs) + b"}"

    return shape


def _few_members(element: bytes) -> Shape:
    """Return a shape with slightly fewer members than the default limit of 5,000.

    The limit counts the elements of all arrays and the members of all objects.
    """

    def shape(size: int, fields: Sequence[str]) -> bytes:
        members_each = 1 + element.count(b":")
        count = min(4900 // members_each, size // (len(element) + 1)) // len(fields) - 1
        array = b"[" + b",".join([element] * max(1, count)) + b"]"
        return _each_field(lambda _: array)(size, fields)

    return shape


def _form(names: Sequence[str], part: bytes, size: int) -> bytes:
    """Return a form with the same long value under each name."""
    share = size // len(names) - 40
    return b"&".join([_repeat(part, share, name.encode() + b"=") for name in names])


JSON_SHAPES: Final[dict[str, Shape]] = {
    "empty": lambda *_: b"{}",
    "null": lambda *_: b"null",
    "integers": lambda size, _: _array(b"1", size),
    "empty objects": lambda size, _: _array(b"{}", size),
    "empty arrays": lambda size, _: _array(b"[]", size),
    "empty texts": lambda size, _: _array(b'""', size),
    "unknown names": lambda size, _: _object(b"1", size),
    "4,900 unknown names": lambda size, _: _object(b"1", size, 4900),
    "repeated name": lambda size, _: _repeat(b'"a":1,', size, b"{", b'"a":1}'),
    "open arrays": lambda size, _: b"[" * size,
    "open objects": lambda size, _: _repeat(b'{"a":', size),
    "many deep arrays": lambda size, _: _array(b"[" * 60 + b"]" * 60, size),
    "commas": lambda size, _: b"," * size,
    "quotes": lambda size, _: b'"' * (size - 6000) + b"," * 6000,
    "backslashes": lambda size, _: b'"' + b"\\" * (size - 6001) + b"," * 6000,
    "spaces": lambda size, _: b" " * size,
    "no UTF-8": lambda size, _: b'"' + b"\xff" * (size - 2) + b'"',
    "arrays": _each_field(lambda size: _array(b"1", size)),
    "arrays of objects": _each_field(lambda size: _array(b"{}", size)),
    "objects": _each_field(lambda size: _object(b"1", size)),
    "long text": _each_field(lambda size: b'"' + b"a" * (size - 2) + b'"'),
    "commas in a text": _each_field(lambda size: b'"' + b",[{" * ((size - 2) // 3) + b'"'),
    "escapes": _each_field(lambda size: _repeat(b"\\u0041", size, b'"', b'"')),
    "escaped surrogates": _each_field(lambda size: _repeat(b"\\ud83d\\ude00", size, b'"', b'"')),
    "emoji": _each_field(lambda size: _repeat("😀".encode(), size, b'"', b'"')),
    "long integer": _each_field(lambda size: b"9" * min(size, 4000)),
    "long fraction": _each_field(lambda size: b"0." + b"9" * (size - 2)),
    "few integers": _few_members(b"1"),
    "few texts": _few_members(b'"x"'),
    "few objects": _few_members(b"{}"),
    "few unknown objects": _few_members(b'{"x":1,"y":[],"z":{}}'),
    "few lines": _few_members(b'{"product_id":' + _ID + b',"quantity":1}'),
    "few counts": _few_members(b'{"product_id":' + _ID + b',"counted":1}'),
    "named objects": _each_field(lambda size: _object(b'{"a":{}}', size, 240)),
}

FORM_SHAPES: Final[dict[str, Shape]] = {
    "ampersands": lambda size, _: b"&" * size,
    "names": lambda size, _: _repeat(b"a&", size),
    "long names": lambda size, _: _form([f"n{number}" for number in range(19)], b"x", size),
    "values": lambda size, fields: _form(fields, b"x", size),
    "escaped values": lambda size, fields: _form(fields, b"%EF%AC%83", size),
    "pluses": lambda size, fields: _form(fields, b"+", size),
    "percents": lambda size, _: b"%" * size,
}
