"""The pages of invoices: their words, amounts and escapes."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from markethall.orders.invoices.contract import (
    InvoiceAmount,
    InvoiceDocument,
    InvoiceKind,
    InvoiceLine,
    InvoiceSeller,
    InvoiceTax,
    InvoiceView,
)
from markethall.orders.router.invoices.html import CONTENT_SECURITY_POLICY, render_html
from markethall.orders.router.invoices.texts import ENGLISH, GERMAN, choose_texts
from markethall.orders.shop.contract import Address

ADDRESS = Address(
    recipient="Ada Lovelace",
    line1="Keizersgracht 1",
    city="Amsterdam",
    postal_code="1015 CJ",
    country="NL",
)
ATTACK = "<script>alert(1)</script>\"'&"


def invoice(**fields: Any) -> InvoiceView:
    document: dict[str, Any] = {
        "seller": InvoiceSeller(
            name="Tea House",
            address="Market 1\n20095 Hamburg",
            email="help@teahouse.example",
            tax_id="DE123456789",
            logo_url="https://images.example/logo.png",
        ),
        "billing_address": ADDRESS,
        "shipping_address": "Market 2",
        "email": "ada@example.com",
        "order_number": "MH-1001",
        "ordered_at": datetime(2026, 11, 29, 23, 30, tzinfo=UTC),
        "currency": "EUR",
        "lines": (
            InvoiceLine(sku="TEA", name="Tea", quantity=3, unit_price=123_456, total=370_368),
        ),
        "discounts": (InvoiceAmount(name="Autumn (TEN)", amount=37_037),),
        "shipping": InvoiceAmount(name="Post", amount=490),
        "taxes": (InvoiceTax(name="VAT", rate="0.19", net=280_522, amount=53_299),),
        "subtotal": 370_368,
        "tax": 0,
        "included_tax": 53_299,
        "total": 333_821,
    }
    return InvoiceView(
        kind=InvoiceKind.INVOICE,
        number=7,
        issued_at=datetime(2026, 11, 30, 12, tzinfo=UTC),
        document=InvoiceDocument(**document | fields),
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def tags_of(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def text_of(page: str) -> str:
    return re.sub(r"<[^>]*>", "|", page.partition("</style>")[2])


def test_page_has_all_that_an_invoice_needs() -> None:
    text = text_of(render_html(invoice(), ENGLISH))

    for part in (
        *(
            "Invoice INV-7",
            "2026-11-30",
            "MH-1001",
            "2026-11-29",
            "Tea House",
            "Tax ID: DE123456789",
        ),
        *("Ada Lovelace", "1015 CJ Amsterdam", "Market 2", "Tea", "TEA"),
        *("1,234.56\xa0EUR", "3,703.68\xa0EUR", "-370.37\xa0EUR", "4.90\xa0EUR"),
        *("VAT 19\xa0%", "2,805.22\xa0EUR", "532.99\xa0EUR", "3,338.21\xa0EUR"),
        "The prices include the tax.",
    ):
        assert part in text


def test_page_is_german_if_the_client_prefers_it() -> None:
    texts = choose_texts("de-AT, en;q=0.5")
    page = render_html(invoice(), texts)
    text = text_of(page)

    assert '<html lang="de">' in page
    for part in ("Rechnung INV-7", "30.11.2026", "Gesamtbetrag", "3.338,21\xa0EUR", "VAT 19\xa0%"):
        assert part in text


@pytest.mark.parametrize("header", ["", "fr", "*", "de;q=0", "en, de", "x" * 2000])
def test_other_languages_get_english(header: str) -> None:
    assert choose_texts(header) is ENGLISH


@pytest.mark.parametrize(
    ("amount", "currency", "english", "german"),
    [
        (0, "EUR", "0.00", "0,00"),
        (5, "EUR", "0.05", "0,05"),
        (-123_456_789, "EUR", "-1,234,567.89", "-1.234.567,89"),
        (1234, "JPY", "1,234", "1.234"),
        (1234, "KWD", "1.234", "1,234"),
    ],
)
def test_amounts_have_the_decimals_of_their_currency(
    amount: int, currency: str, english: str, german: str
) -> None:
    assert ENGLISH.money(amount, currency) == f"{english}\xa0{currency}"
    assert GERMAN.money(amount, currency) == f"{german}\xa0{currency}"


def test_rates_are_exact() -> None:
    assert [ENGLISH.percent(rate) for rate in ("0.08875", "0.2", "0", "0.07")] == [
        "8.875\xa0%",
        "20\xa0%",
        "0\xa0%",
        "7\xa0%",
    ]
    assert GERMAN.percent("0.08875") == "8,875\xa0%"


def test_added_tax_is_a_row_of_the_sums() -> None:
    text = text_of(render_html(invoice(tax=100, included_tax=0), ENGLISH))

    assert "|Tax||1.00\xa0EUR|" in text
    assert "The tax is added to the prices." in text


def test_invoice_without_tax_shipping_and_discount_has_none_of_their_rows() -> None:
    text = text_of(
        render_html(invoice(taxes=(), shipping=None, discounts=(), included_tax=0), ENGLISH)
    )

    assert not [word for word in ("Shipping", "Discount", "Net amount", "VAT") if word in text]


def test_texts_of_customers_and_sellers_are_no_markup() -> None:
    hostile = invoice(
        seller=InvoiceSeller(
            name=ATTACK,
            address=ATTACK,
            email=ATTACK,
            tax_id=ATTACK,
            logo_url='https://a/"onerror="alert(1)',
        ),
        billing_address=ADDRESS.model_copy(update={"recipient": ATTACK, "line2": ATTACK}),
        shipping_address=ATTACK,
        order_number=ATTACK,
        lines=(InvoiceLine(sku=ATTACK, name=ATTACK, quantity=1, unit_price=1, total=1),),
        discounts=(InvoiceAmount(name=ATTACK, amount=1),),
        shipping=InvoiceAmount(name=ATTACK, amount=1),
        taxes=(InvoiceTax(name=ATTACK, rate="0.1", net=1, amount=1),),
    )

    tags = tags_of(render_html(hostile, ENGLISH))

    assert tags.names == tags_of(render_html(invoice(), ENGLISH)).names
    assert tags.attributes == tags_of(render_html(invoice(), ENGLISH)).attributes


def test_policy_allows_no_script_and_only_the_style_of_the_page() -> None:
    page = render_html(invoice(), ENGLISH)

    assert "script" not in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; style-src 'sha256-")
    assert "style=" not in page
    assert 'http-equiv="Content-Security-Policy"' in page
