"""Invoices as PDF files. Needs the package fpdf2, which the extra `pdf` installs."""

from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from markethall.orders.invoices.contract import InvoiceView
from markethall.orders.router.invoices.texts import (
    Texts,
    address_lines,
    facts_of,
    number_text,
    seller_lines,
    sums_of,
    taxes_of,
)
from markethall.shared.kernel.errors import DomainError

# not imported above, because the package is optional
_PACKAGE: Final = "fpdf"
# The standard fonts of PDF have only the characters of Windows-1252. Other characters need a font
# of the system; these files are where Debian, Fedora and Alpine put DejaVu Sans.
_STANDARD_FONT: Final = "helvetica"
_STANDARD_ENCODING: Final = "cp1252"
_FONT_FOLDERS: Final = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu-sans-fonts"),
    Path("/usr/share/fonts/dejavu"),
)
_FONT_FILES: Final = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_MARGIN_MM: Final = 18
_LINE_MM: Final = 5
_PARTY_MM: Final = 58
_NUMBER_MM: Final = (20, 34, 34)
_GREY: Final = (85, 85, 85)
# the package replaces this text by the number of pages, wherever it stands
_PAGE_COUNT: Final = "{number of pages}"


class InvoicePdfUnavailable(DomainError):
    """This server makes no PDF files. Details: reason, `package` or `font`.

    With `package`, the extra `pdf` is not installed. With `font`, the invoice has characters that
    no installed font has. The invoice is available as HTML.
    """

    code = "orders.invoice_pdf_unavailable"
    status = 404
    title = "This server has no PDF of the invoice"


def render_pdf(view: InvoiceView, texts: Texts) -> bytes:
    """Raises InvoicePdfUnavailable."""
    if find_spec(_PACKAGE) is None:
        raise InvoicePdfUnavailable(reason="package")
    return _InvoicePdf(view, texts).render()


class _InvoicePdf:
    """One PDF file. Each part is written below the previous one."""

    def __init__(self, view: InvoiceView, texts: Texts) -> None:
        self._view = view
        self._texts = texts
        self._font = _STANDARD_FONT
        self._pdf = _new_pdf()

    def render(self) -> bytes:
        self._choose_font()
        view, texts, pdf = self._view, self._texts, self._pdf
        title = f"{texts.titles[view.kind]} {number_text(view.kind, view.number)}"
        pdf.set_title(title)
        pdf.set_lang(texts.language)
        pdf.set_creation_date(view.issued_at)
        pdf.add_page()
        self._write_lines(seller_lines(view, texts))
        self._write_title(title)
        self._write_parties()
        self._write_table(self._line_rows(), _NUMBER_MM)
        self._write_sums()
        self._write_taxes()
        return bytes(pdf.output())

    def _choose_font(self) -> None:
        """Use the standard font if it has all characters, or else a font of the system."""
        text = self._view.model_dump_json()
        if _has_standard_characters(text):
            return
        paths = _system_font()
        if paths is None:
            raise InvoicePdfUnavailable(reason="font")
        self._font = "system"
        for style, path in paths.items():
            self._pdf.add_font(self._font, style, path)
        self._pdf.set_font(self._font)
        if not all(ord(character) in self._pdf.current_font.cmap for character in set(text)):
            raise InvoicePdfUnavailable(reason="font")

    def _set_font(self, size: float, style: str = "", *, grey: bool = False) -> None:
        self._pdf.set_font(self._font, style, size)
        self._pdf.set_text_color(*(_GREY if grey else (0, 0, 0)))

    def _write_lines(self, lines: Iterable[str], width: float = 0) -> None:
        self._set_font(9.5)
        self._pdf.multi_cell(
            width, _LINE_MM, "\n".join(lines), align="L", new_x="LEFT", new_y="NEXT"
        )

    def _write_title(self, title: str) -> None:
        self._pdf.ln(8)
        self._set_font(17, "B")
        self._pdf.cell(0, 10, title, new_x="LMARGIN", new_y="NEXT")
        self._pdf.ln(2)

    def _write_parties(self) -> None:
        """Write the two addresses and the facts side by side."""
        pdf, document, texts = self._pdf, self._view.document, self._texts
        top, bottom = pdf.get_y(), 0.0
        facts = [f"{label}: {value}" for label, value in facts_of(self._view, texts)]
        parts = (
            (texts.bill_to, address_lines(document.billing_address)),
            (texts.ship_to, address_lines(document.shipping_address)),
            ("", facts),
        )
        for index, (label, lines) in enumerate(parts):
            pdf.set_xy(_MARGIN_MM + index * _PARTY_MM, top)
            self._set_font(8, "B", grey=True)
            pdf.cell(_PARTY_MM, _LINE_MM, label, new_x="LEFT", new_y="NEXT")
            self._write_lines(lines, _PARTY_MM - 3)
            bottom = max(bottom, pdf.get_y())
        pdf.set_xy(_MARGIN_MM, bottom + 8)

    def _line_rows(self) -> list[tuple[str, ...]]:
        texts, document = self._texts, self._view.document
        head = (texts.article, texts.quantity, texts.unit_price, texts.amount)
        return [
            head,
            *(
                (
                    f"{line.name}\n{line.sku}",
                    str(line.quantity),
                    texts.money(line.unit_price, document.currency),
                    texts.money(line.total, document.currency),
                )
                for line in document.lines
            ),
        ]

    def _write_table(self, rows: list[tuple[str, ...]], number_widths: tuple[int, ...]) -> None:
        """Write rows; the first is the head. All columns but the first are numbers."""
        font_face = import_module(_PACKAGE).FontFace
        self._set_font(9.5)
        widths = (self._pdf.epw - sum(number_widths), *number_widths)
        with self._pdf.table(
            col_widths=widths,
            text_align=("LEFT", *("RIGHT",) * len(number_widths)),
            borders_layout="HORIZONTAL_LINES",
            headings_style=font_face(emphasis="BOLD", color=_GREY),
            line_height=_LINE_MM,
            padding=(1, 0, 1, 0),
            v_align="TOP",
        ) as table:
            for cells in rows:
                table.row(cells)

    def _write_sums(self) -> None:
        view, texts = self._view, self._texts
        self._pdf.ln(4)
        for label, amount in sums_of(view, texts):
            self._write_sum(label, amount)
        total = texts.money(view.document.total, view.document.currency)
        self._write_sum(texts.total, total, is_total=True)

    def _write_sum(self, label: str, amount: str, *, is_total: bool = False) -> None:
        pdf, height = self._pdf, 8 if is_total else 6
        self._set_font(11 if is_total else 9.5, "B" if is_total else "")
        border = "T" if is_total else 0
        pdf.set_x(pdf.w - _MARGIN_MM - 100)
        top = pdf.get_y()
        pdf.multi_cell(64, height, label, border=border, align="L", new_x="RIGHT", new_y="TOP")
        pdf.cell(36, height, amount, border=border, align="R")
        # a long name of a discount has several lines
        pdf.set_y(max(top + height, pdf.get_y() + height))

    def _write_taxes(self) -> None:
        document, texts = self._view.document, self._texts
        if not document.taxes:
            return
        self._pdf.ln(6)
        included = bool(document.included_tax)
        self._write_lines([texts.prices_include_tax if included else texts.prices_exclude_tax])
        head = (texts.rate, texts.net, texts.tax)
        self._write_table([head, *taxes_of(self._view, texts)], (40, 40))


def _new_pdf() -> Any:
    pdf = import_module(_PACKAGE).FPDF(format="A4")
    pdf.core_fonts_encoding = _STANDARD_ENCODING
    pdf.set_margin(_MARGIN_MM)
    pdf.set_auto_page_break(auto=True, margin=_MARGIN_MM)
    pdf.alias_nb_pages(_PAGE_COUNT)
    pdf.footer = lambda: _write_page_number(pdf)
    return pdf


def _write_page_number(pdf: Any) -> None:
    pdf.set_y(-12)
    pdf.set_font(_STANDARD_FONT, size=8)
    pdf.set_text_color(*_GREY)
    pdf.cell(0, 5, f"{pdf.page_no()} / {_PAGE_COUNT}", align="R")


def _has_standard_characters(text: str) -> bool:
    """Tell whether the standard font has all characters of the text."""
    try:
        text.encode(_STANDARD_ENCODING)
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=1)
def _system_font() -> dict[str, Path] | None:
    """Return the files of the font by style, or None if it is not installed."""
    for folder in _FONT_FOLDERS:
        paths = {style: folder / name for style, name in _FONT_FILES.items()}
        if all(path.is_file() for path in paths.values()):
            return paths
    return None
