"""The route that receives the webhooks of the providers."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from markethall.payments.contract.api import WebhookReceipt
from markethall.payments.contract.errors import (
    UnknownProvider,
    UnsupportedByProvider,
    WebhookSignatureInvalid,
)
from markethall.payments.router.dependencies import PaymentApiDep
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import CardCheck, public
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    MalformedRequest,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.model import Text

router = APIRouter(tags=["payments"])

_RAW_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The event. The header `Sandbox-Signature` or `Stripe-Signature` signs"
        " exactly these bytes.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post(
    "/payments/webhooks/{provider}",
    response_model=WebhookReceipt,
    summary="Receive a webhook",
    responses=problems(
        UnknownProvider,
        UnsupportedByProvider,
        WebhookSignatureInvalid,
        MalformedRequest,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        Unavailable,
    ),
    openapi_extra=_RAW_BODY,
)
async def receive_webhook(
    request: Request,
    ctx: Annotated[CallContext, public(card_check=CardCheck(is_enabled=False))],
    provider: Annotated[Text, Field(max_length=50, examples=["sandbox"])],
    api: PaymentApiDep,
) -> Response:
    """Store and apply an event of a provider. The response is 200 for a duplicate too.

    A card number in the event is not refused, but it is not stored either.
    """
    body = await request.body()
    return json_response(await api.receive_webhook(ctx, provider, request.headers, body))
