"""HTTP API of payments."""

from fastapi import APIRouter

from markethall.payments.router import ledger, manual_refunds, payments, refunds, webhooks

router = APIRouter()
# manual_refunds comes first, because /payments/refunds also matches /payments/{payment_id}
for module in (manual_refunds, payments, refunds, webhooks, ledger):
    router.routes.extend(module.router.routes)
