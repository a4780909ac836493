"""HTTP API of payments."""

from fastapi import APIRouter

from markethall.payments.router import ledger, payments, reconciliations, refunds, webhooks

router = APIRouter()
for module in (payments, refunds, webhooks, ledger, reconciliations):
    router.routes.extend(module.router.routes)
