"""Test Accept-Language and the choice of a language by lookup."""

import pytest

from markethall.shared.kernel.languages import (
    MAX_HEADER_LENGTH,
    lookup_language,
    parse_accept_language,
)


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("", []),
        ("de", ["de"]),
        ("de-AT, de;q=0.9, en;q=0.8", ["de-AT", "de", "en"]),
        ("en;q=0.5,de", ["de", "en"]),
        ("fr;q=0.7,de;q=0.7,en;q=0.71", ["en", "fr", "de"]),
        (" de ; q=1.000 ,\ten;Q=0.001", ["de", "en"]),
        ("de;q=0, en;q=0.000, fr;q=0.", []),
        ("*, de;q=0.1", ["de"]),
        ("de;q=1.5, en;q=2, fr;q=-1, it;q=0.1234, nl;q=x, pl;level=1", []),
        ("toolonglanguage, d_e, ä, de--AT, -de, de-, \x00, ;q=1, =", []),
        ("zh-Hant-TW", ["zh-Hant-TW"]),
    ],
)
def test_ranges_are_sorted_by_weight(header: str, ranges: list[str]) -> None:
    assert list(parse_accept_language(header)) == ranges


@pytest.mark.parametrize(
    "header",
    [
        "de," * 10_000,
        "de;q=0.5" + " " * 30_000,
        "a-" * 15_000,
        ",".join(f"x{number}" for number in range(5000)),
        ";q=" * 10_000,
        "\xff" * 32_000,
    ],
)
def test_long_header_is_bounded(header: str) -> None:
    ranges = parse_accept_language(header)

    assert len(ranges) <= 20
    assert ranges == parse_accept_language(header[:MAX_HEADER_LENGTH])


@pytest.mark.parametrize(
    ("ranges", "language"),
    [
        (["de"], "de"),
        (["DE-at"], "de"),
        (["de-Latn-AT-1996"], "de"),
        (["zh-Hant-x-private"], "zh-Hant"),
        (["pt"], None),
        (["pt-PT", "pt-br"], "pt-BR"),
        (["nl", "fr-CA", "de"], "fr"),
        ([], None),
        (["d"], None),
    ],
)
def test_lookup_makes_range_shorter(ranges: list[str], language: str | None) -> None:
    available = {tag.lower(): tag for tag in ("de", "fr", "pt-BR", "zh-Hant")}

    assert lookup_language(ranges, available) == language
