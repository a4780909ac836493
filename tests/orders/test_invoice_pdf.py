"""Invoices as PDF files."""

import importlib.util
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from markethall.orders.router.invoices import pdf
from markethall.orders.router.invoices.pdf import InvoicePdfUnavailable, render_pdf
from markethall.orders.router.invoices.texts import ENGLISH, GERMAN
from tests.orders.test_invoice_pages import ATTACK, invoice


@pytest.fixture(autouse=True)
def without_cached_font() -> None:
    pdf._system_font.cache_clear()


def contents_of(file: bytes) -> str:
    """Return the drawing operators of all pages. Texts in a standard font are readable in them."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", file, re.DOTALL)
    return b"\n".join(zlib.decompress(stream) for stream in streams if stream[:1] == b"x").decode(
        "latin-1"
    )


def test_file_is_a_pdf_with_the_parts_of_the_invoice() -> None:
    file = render_pdf(invoice(), ENGLISH)
    text = contents_of(file)

    assert file.startswith(b"%PDF-")
    for part in ("Invoice INV-7", "Ada Lovelace", "Market 2", "Tea House", "VAT 19", "3,338.21"):
        assert part in text
    assert file.count(b"/Type /Page\n") == 1


def test_long_invoice_has_several_pages_and_german_words() -> None:
    (line,) = invoice().document.lines

    file = render_pdf(invoice(lines=(line,) * 60), GERMAN)

    assert file.count(b"/Type /Page\n") > 1
    assert "Gesamtbetrag" in contents_of(file)


@pytest.mark.parametrize(
    "text",
    [
        "Müller & Söhne \N{EURO SIGN}",
        ATTACK,
        "x" * 500,
        "**bold** {nb} {number of pages}",
        "a\u00a0b",
    ],
)
def test_unusual_text_is_accepted(text: str) -> None:
    (line,) = invoice().document.lines
    hostile = line.model_copy(update={"name": text, "sku": text})

    assert render_pdf(invoice(lines=(hostile,), shipping_address=text), ENGLISH)


def test_text_without_a_font_has_a_clear_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pdf, "_FONT_FOLDERS", (tmp_path,))

    with pytest.raises(InvoicePdfUnavailable) as refused:
        render_pdf(invoice(shipping_address="Łódź"), ENGLISH)

    assert (refused.value.status, refused.value.details) == (404, {"reason": "font"})


def test_missing_package_is_a_clear_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def find_others(name: str, *arguments: Any) -> Any:
        return None if name == "fpdf" else find_spec(name, *arguments)

    monkeypatch.setattr(pdf, "find_spec", find_others)

    with pytest.raises(InvoicePdfUnavailable) as refused:
        render_pdf(invoice(), ENGLISH)

    assert refused.value.details == {"reason": "package"}
