"""HTTP API of invoices."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from markethall.orders.contract import OrderNotFound
from markethall.orders.invoices.contract import InvoiceNotFound
from markethall.orders.router.dependencies import InvoicesDep, OrderViewer
from markethall.orders.router.invoices.html import CONTENT_SECURITY_POLICY, render_html
from markethall.orders.router.invoices.pdf import InvoicePdfUnavailable, render_pdf
from markethall.orders.router.invoices.texts import choose_texts, number_text
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.kernel.model import Id

router = APIRouter(tags=["orders"])


AcceptLanguage = Annotated[
    str, Header(description="The language of the fixed words: `en` (the default) or `de`")
]


def _documented(description: str, media_type: str, schema: dict[str, Any]) -> dict[int | str, Any]:
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


@router.get(
    "/orders/{order_id}/invoice",
    response_class=HTMLResponse,
    summary="Get the invoice of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound, InvoiceNotFound)
    | _documented("The invoice, to print on A4", "text/html", {"type": "string"}),
)
async def get_invoice(
    ctx: OrderViewer, order_id: Id, invoices: InvoicesDep, accept_language: AcceptLanguage = ""
) -> Response:
    """Return the invoice as an HTML page. An order gets its invoice when it is paid.

    Invoices are numbered without gaps. An invoice keeps the settings of the shop and the addresses
    of the time when it was made. Dates are in UTC.
    """
    view = await invoices.get_invoice(ctx, order_id)
    texts = choose_texts(accept_language)
    headers = _headers(texts.language) | {"content-security-policy": CONTENT_SECURITY_POLICY}
    return HTMLResponse(render_html(view, texts), headers=headers)


@router.get(
    "/orders/{order_id}/invoice.pdf",
    response_class=Response,
    summary="Get the invoice of an order as PDF",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound, InvoiceNotFound, InvoicePdfUnavailable)
    | _documented(
        "The invoice", "application/pdf", {"type": "string", "contentMediaType": "application/pdf"}
    ),
)
async def get_invoice_pdf(
    ctx: OrderViewer, order_id: Id, invoices: InvoicesDep, accept_language: AcceptLanguage = ""
) -> Response:
    """Return the invoice as a PDF file. The server needs the extra `pdf` for it."""
    view = await invoices.get_invoice(ctx, order_id)
    texts = choose_texts(accept_language)
    # in a thread, because an invoice with many lines takes some tenths of a second
    content = await run_in_threadpool(render_pdf, view, texts)
    filename = f"{number_text(view.kind, view.number)}.pdf"
    headers = _headers(texts.language) | {"content-disposition": f'inline; filename="{filename}"'}
    return Response(content, media_type="application/pdf", headers=headers)


def _headers(language: str) -> dict[str, str]:
    return {"cache-control": "no-store", "content-language": language, "vary": "Accept-Language"}
