"""Invoices as HTML pages that can be printed on A4."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from typing import Final

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
from markethall.orders.shop.contract import AnyAddress

_CSS: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 50rem; background: #fff; color: #1b1b1b;
  font: 0.9375rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
header { display: flex; gap: 2rem; justify-content: space-between; align-items: flex-start; }
header img { max-width: 12rem; max-height: 4rem; }
address { font-style: normal; }
h1 { margin: 2rem 0 1rem; font-size: 1.625rem; line-height: 1.2; }
h2 { margin: 0 0 0.25rem; font-size: 0.8125rem; color: #555; }
.parties { display: grid; grid-template-columns: 1fr 1fr auto; gap: 1.5rem 2rem; }
dl { margin: 0; display: grid; grid-template-columns: auto auto; gap: 0 1rem;
  align-content: start; }
dt { color: #555; }
dd { margin: 0; text-align: right; }
table { width: 100%; margin-top: 2rem; border-collapse: collapse; }
caption { padding-bottom: 0.25rem; text-align: left; color: #555; font-size: 0.8125rem;
  font-weight: bold; }
th { overflow-wrap: normal; text-align: left; font-size: 0.8125rem; color: #555;
  border-bottom: 1px solid #1b1b1b; }
th, td { padding: 0.375rem 0 0.375rem 1rem; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
.lines tbody td { border-bottom: 1px solid #ddd; }
.lines td:first-child { width: 50%; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.sku { color: #555; font-size: 0.8125rem; }
tr { break-inside: avoid; }
.sums td { padding-top: 0.25rem; padding-bottom: 0.25rem; }
.sums { width: auto; margin: 1rem 0 0 auto; break-inside: avoid; }
.sums .total td { border-top: 2px solid #1b1b1b; font-weight: bold; font-size: 1.0625rem; }
.taxes { break-inside: avoid; width: auto; min-width: 60%; }
footer { margin-top: 2.5rem; padding-top: 0.75rem; border-top: 1px solid #ddd; color: #555;
  font-size: 0.8125rem; }
@media (max-width: 40rem) {
  header, .parties { display: grid; grid-template-columns: 1fr; gap: 1rem; }
  dd { text-align: left; }
}
@page { size: A4; margin: 16mm 18mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; } }
@media print { :root { font-size: 10pt; } body { max-width: none; padding: 0; } }
"""
_CSS_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
# the policy is also in the page itself, because a saved page has no response headers
_PAGE_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; img-src https: http:;"
    " base-uri 'none'; form-action 'none'"
)
CONTENT_SECURITY_POLICY: Final = f"{_PAGE_POLICY}; frame-ancestors 'none'"


def render_html(view: InvoiceView, texts: Texts) -> str:
    title = f"{texts.titles[view.kind]} {number_text(view.kind, view.number)}"
    return f"""<!doctype html>
<html lang="{texts.language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(_PAGE_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
{_header(view, texts)}
<main>
<h1>{escape(title)}</h1>
{_parties(view, texts)}
{_lines(view, texts)}
{_sums(view, texts)}
{_taxes(view, texts)}
</main>
{_footer(view)}
</body>
</html>
"""


def _header(view: InvoiceView, texts: Texts) -> str:
    logo_url = view.document.seller.logo_url
    logo = f'<img src="{escape(logo_url)}" alt="">' if logo_url else ""
    lines = _with_breaks(seller_lines(view, texts))
    return f"<header>\n<address>{lines}</address>\n{logo}\n</header>"


def _parties(view: InvoiceView, texts: Texts) -> str:
    document = view.document
    facts = "\n".join(
        f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>"
        for label, value in facts_of(view, texts)
    )
    return f"""<div class="parties">
{_party(texts.bill_to, document.billing_address)}
{_party(texts.ship_to, document.shipping_address)}
<dl>
{facts}
</dl>
</div>"""


def _party(label: str, address: AnyAddress) -> str:
    lines = _with_breaks(address_lines(address))
    return f"<div><h2>{escape(label)}</h2><address>{lines}</address></div>"


def _lines(view: InvoiceView, texts: Texts) -> str:
    currency = view.document.currency
    rows = "\n".join(
        f'<tr><td>{escape(line.name)}<br><span class="sku">{escape(line.sku)}</span></td>'
        f'<td class="number">{line.quantity}</td>'
        f'<td class="number">{escape(texts.money(line.unit_price, currency))}</td>'
        f'<td class="number">{escape(texts.money(line.total, currency))}</td></tr>'
        for line in view.document.lines
    )
    head = _head(texts.article, texts.quantity, texts.unit_price, texts.amount)
    return f'<table class="lines">\n{head}\n<tbody>\n{rows}\n</tbody>\n</table>'


def _sums(view: InvoiceView, texts: Texts) -> str:
    document = view.document
    rows = [
        f'<tr><td>{escape(label)}</td><td class="number">{escape(amount)}</td></tr>'
        for label, amount in sums_of(view, texts)
    ]
    total = escape(texts.money(document.total, document.currency))
    rows.append(
        f'<tr class="total"><td>{escape(texts.total)}</td><td class="number">{total}</td></tr>'
    )
    return f'<table class="sums">\n<tbody>\n{"".join(rows)}\n</tbody>\n</table>'


def _taxes(view: InvoiceView, texts: Texts) -> str:
    document = view.document
    if not document.taxes:
        return ""
    rows = "\n".join(
        f'<tr><td>{escape(name)}</td><td class="number">{escape(net)}</td>'
        f'<td class="number">{escape(amount)}</td></tr>'
        for name, net, amount in taxes_of(view, texts)
    )
    how = texts.prices_include_tax if document.included_tax else texts.prices_exclude_tax
    head = _head(texts.rate, texts.net, texts.tax)
    return (
        f'<table class="taxes">\n<caption>{escape(how)}</caption>\n{head}\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _head(first: str, *others: str) -> str:
    cells = "".join(f'<th scope="col" class="number">{escape(each)}</th>' for each in others)
    return f'<thead><tr><th scope="col">{escape(first)}</th>{cells}</tr></thead>'


def _footer(view: InvoiceView) -> str:
    seller = view.document.seller
    return f"<footer>{escape(' · '.join(filter(None, (seller.name, seller.email))))}</footer>"


def _with_breaks(lines: Iterable[str]) -> str:
    return "<br>".join(map(escape, lines))
