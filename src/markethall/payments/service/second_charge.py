"""Refund a charge that has succeeded although another charge had captured the payment.

An authorization is voided instead. The ledger has no posting of this charge or of its refund,
because it records only the charge that captured the payment.
"""

from dataclasses import replace
from datetime import datetime

import structlog

from markethall.payments.domain import Operation, Outcome, Succeeded
from markethall.payments.service.provider_client import ProviderClient
from markethall.shared.kernel.ids import derive_uuid7

log = structlog.get_logger("markethall.payments")


async def refund_second_charge(
    provider: ProviderClient, charge: Operation, reference: str, now: datetime
) -> Outcome | None:
    """Refund the whole charge, or void it. Return None if the provider gave no answer.

    `reference` is the id of the charge at the provider. A repeated call refunds nothing more.
    """
    refund_id = derive_uuid7(charge.operation_id, "second charge")
    charge = replace(charge, provider_reference=reference)
    refund = await provider.take_back(charge, refund_id, now)
    if refund is None:
        return None
    operation_id = str(charge.operation_id)
    if isinstance(refund, Succeeded):
        log.warning("payment.second_charge_refunded", operation_id=operation_id)
    else:
        log.error("payment.second_charge_not_refunded", operation_id=operation_id)
    return refund
