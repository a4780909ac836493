"""What is ready to send takes no more memory than it may."""

import pytest

from markethall.shared.warm import Held, Ready, Warm

HELD = Held("space", "key", b"made of this")


class Kept:
    """A cache that keeps one value."""

    def peek(self, space: str, key: str) -> bytes | None:
        return HELD.value if (space, key) == (HELD.space, HELD.key) else None


@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
def test_one_answer_in_many_spellings_takes_no_more_than_it_may(body: bytes) -> None:
    warm = Warm(Kept(), most_bytes=1_000_000)
    addresses = [("/products", b"q=%d" % number) for number in range(5000)]

    for path, query in addresses:
        scope = {"path": path, "query_string": query}
        warm.keep(scope, Ready(HELD, path, body, '"tag"', b"public"))

    found = [warm.find({"path": path, "query_string": query}) for path, query in addresses]
    # an empty one is not for nothing: what stands around it weighs too
    assert 0 < sum(ready is not None for ready in found) < 500
    assert found[-1] is not None
