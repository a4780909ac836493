"""HTTP API of payments."""

from fastapi import APIRouter

from markethall.payments.router import (
    captures,
    ledger,
    payments,
    reconciliations,
    refunds,
    saved_methods,
    webhooks,
)

router = APIRouter()
for module in (payments, captures, saved_methods, refunds, webhooks, ledger, reconciliations):
    router.routes.extend(module.router.routes)
