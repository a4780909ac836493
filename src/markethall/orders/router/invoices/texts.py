"""The fixed words of invoices, and the formats of numbers and dates, in each language."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from markethall.orders.invoices.contract import InvoiceKind, InvoiceView
from markethall.orders.shop.contract import Address, AnyAddress
from markethall.shared.kernel.languages import lookup_language, parse_accept_language
from markethall.shared.kernel.money import format_major_units

# the prefixes of the numbers of invoices and credit notes
_PREFIX: Final = MappingProxyType({InvoiceKind.INVOICE: "INV-", InvoiceKind.CREDIT_NOTE: "CN-"})
# keeps an amount and its currency on one line
_NO_BREAK_SPACE: Final = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Texts:
    language: str
    titles: Mapping[InvoiceKind, str]
    number: str
    date: str
    order: str
    order_date: str
    corrects: str
    tax_id: str
    bill_to: str
    ship_to: str
    article: str
    quantity: str
    unit_price: str
    amount: str
    subtotal: str
    discount: str
    shipping: str
    tax: str
    total: str
    rate: str
    net: str
    prices_include_tax: str
    prices_exclude_tax: str
    untaxed: str
    decimal_separator: str
    group_separator: str
    date_format: str

    def money(self, amount: int, currency: str) -> str:
        """Format minor units: 123456 EUR is "1,234.56 EUR" or "1.234,56 EUR"."""
        sign = "-" if amount < 0 else ""
        whole, _, fraction = format_major_units(abs(amount), currency).partition(".")
        number = f"{int(whole):,}".replace(",", self.group_separator)
        if fraction:
            number += self.decimal_separator + fraction
        return f"{sign}{number}{_NO_BREAK_SPACE}{currency}"

    def percent(self, rate: str) -> str:
        """Format a rate: "0.08875" is "8.875 %"."""
        number = f"{(Decimal(rate) * 100).normalize():f}"
        return f"{number.replace('.', self.decimal_separator)}{_NO_BREAK_SPACE}%"

    def day(self, at: datetime) -> str:
        return at.astimezone(UTC).strftime(self.date_format)


# each text in English and in German
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "language": ("en", "de"),
    "number": ("Number", "Nummer"),
    "date": ("Date", "Datum"),
    "order": ("Order", "Bestellung"),
    "order_date": ("Order date", "Bestelldatum"),
    "corrects": ("Corrects invoice", "Korrigiert Rechnung"),
    "tax_id": ("Tax ID", "Steuernummer"),
    "bill_to": ("Bill to", "Rechnungsadresse"),
    "ship_to": ("Ship to", "Lieferadresse"),
    "article": ("Item", "Artikel"),
    "quantity": ("Quantity", "Menge"),
    "unit_price": ("Unit price", "Einzelpreis"),
    "amount": ("Amount", "Betrag"),
    "subtotal": ("Subtotal", "Zwischensumme"),
    "discount": ("Discount", "Rabatt"),
    "shipping": ("Shipping", "Versand"),
    "tax": ("Tax", "Steuer"),
    "total": ("Total", "Gesamtbetrag"),
    "rate": ("Rate", "Satz"),
    "net": ("Net amount", "Nettobetrag"),
    "prices_include_tax": ("The prices include the tax.", "Die Preise enthalten die Steuer."),
    "prices_exclude_tax": (
        "The tax is added to the prices.",
        "Die Steuer kommt zu den Preisen hinzu.",
    ),
    "untaxed": ("untaxed", "steuerfrei"),
    "decimal_separator": (".", ","),
    "group_separator": (",", "."),
    "date_format": ("%Y-%m-%d", "%d.%m.%Y"),
}
_TITLES: Final = (
    {InvoiceKind.INVOICE: "Invoice", InvoiceKind.CREDIT_NOTE: "Credit note"},
    {InvoiceKind.INVOICE: "Rechnung", InvoiceKind.CREDIT_NOTE: "Gutschrift"},
)
ENGLISH, GERMAN = (
    Texts(titles=titles, **{name: texts[index] for name, texts in _TEXTS.items()})
    for index, titles in enumerate(_TITLES)
)
_BY_LANGUAGE: Final = {texts.language: texts for texts in (ENGLISH, GERMAN)}
_LANGUAGES: Final = {language: language for language in _BY_LANGUAGE}


def choose_texts(accept_language: str) -> Texts:
    """Return the texts of the best language; English is the default."""
    language = lookup_language(parse_accept_language(accept_language), _LANGUAGES)
    return _BY_LANGUAGE[language or ENGLISH.language]


def number_text(kind: InvoiceKind, number: int) -> str:
    return f"{_PREFIX[kind]}{number}"


def facts_of(view: InvoiceView, texts: Texts) -> Iterator[tuple[str, str]]:
    """Return the label and the value of what identifies the document."""
    document = view.document
    yield texts.number, number_text(view.kind, view.number)
    yield texts.date, texts.day(view.issued_at)
    if view.invoice_number is not None:
        yield texts.corrects, number_text(InvoiceKind.INVOICE, view.invoice_number)
    yield texts.order, document.order_number
    yield texts.order_date, texts.day(document.ordered_at)


def sums_of(view: InvoiceView, texts: Texts) -> Iterator[tuple[str, str]]:
    """Return the label and the amount of each row between the lines and the total."""
    document = view.document

    def money(amount: int) -> str:
        return texts.money(amount, document.currency)

    yield texts.subtotal, money(document.subtotal)
    for discount in document.discounts:
        yield f"{texts.discount}: {discount.name}", money(-discount.amount)
    if document.shipping:
        yield f"{texts.shipping}: {document.shipping.name}", money(document.shipping.amount)
    if document.tax:
        yield texts.tax, money(document.tax)


def taxes_of(view: InvoiceView, texts: Texts) -> Iterator[tuple[str, str, str]]:
    """Return the rate, the net amount and the tax of each row of the tax table."""
    currency = view.document.currency
    for tax in view.document.taxes:
        name = f"{tax.name} {texts.percent(tax.rate)}" if tax.name else texts.untaxed
        yield name, texts.money(tax.net, currency), texts.money(tax.amount, currency)


def address_lines(address: AnyAddress) -> list[str]:
    """Return the lines of an address as they are printed."""
    if not isinstance(address, Address):
        return address.splitlines()
    town = " ".join(filter(None, (address.postal_code, address.city, address.region)))
    lines = (address.recipient, address.line1, address.line2, town, address.country)
    return [line for line in lines if line]


def seller_lines(view: InvoiceView, texts: Texts) -> list[str]:
    """Return the name, the address and the tax id of the seller.

    If the address begins with the name, the name is not repeated.
    """
    seller = view.document.seller
    lines = address_lines(seller.address) if seller.address else []
    name = [] if seller.name in lines[:1] else [seller.name]
    tax_id = [f"{texts.tax_id}: {seller.tax_id}"] if seller.tax_id else []
    return [*name, *lines, *tax_id]
