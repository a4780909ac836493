"""HTTP API of payments."""

from fastapi import APIRouter

from markethall.payments.router import ledger, payments, refunds, webhooks

router = APIRouter()
for module in (payments, refunds, webhooks, ledger):
    router.routes.extend(module.router.routes)
