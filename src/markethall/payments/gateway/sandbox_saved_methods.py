"""The saved payment methods of the sandbox."""

from dataclasses import replace
from typing import Final
from uuid import UUID

from markethall.payments.domain.operation import Outcome, Succeeded
from markethall.payments.domain.saved_method import MethodDetails
from markethall.payments.ports import OperationRequest, SandboxLedger, SandboxSavedMethod

TOKEN_PREFIX: Final = "sandbox_saved_"


class SandboxSavedMethods:
    def __init__(self, ledger: SandboxLedger) -> None:
        self._ledger = ledger

    def customer_of(self, user_id: UUID) -> str:
        return f"sandbox_customer_{user_id.hex}"

    async def resolve(self, request: OperationRequest) -> OperationRequest | None:
        """Replace the token of a saved method by the method that was saved.

        Return None if the method does not exist, is detached or belongs to another customer.
        """
        if not request.method.startswith(TOKEN_PREFIX):
            return request
        saved = await self._ledger.get_saved_method(request.method)
        if saved is None or not saved.is_attached or saved.customer != request.customer:
            return None
        return replace(request, method=saved.method)

    async def save(self, request: OperationRequest, outcome: Outcome) -> Outcome:
        """Save the method of a charge that has succeeded, if the customer wants it."""
        if not isinstance(outcome, Succeeded) or not request.saves_method or not request.customer:
            return outcome
        token = f"{TOKEN_PREFIX}{request.operation_id.hex}"
        await self._ledger.record_saved_method(
            SandboxSavedMethod(token, request.customer, request.method)
        )
        details = MethodDetails(token, brand="sandbox", last4="4242", exp_month=12, exp_year=2099)
        return replace(outcome, saved_method=details)

    async def detach(self, token: str) -> None:
        await self._ledger.detach_saved_method(token)
