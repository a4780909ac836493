"""The payment provider: in this process, and immediate."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Outcome:
    """The outcome of a charge: either a reference of the provider, or a failure code."""

    reference: str | None = None
    failure_code: str | None = None


async def charge(operation_id: UUID, method: str, amount: int) -> Outcome:
    """Charge the amount. The same operation id always has the same outcome."""
    if method == "sandbox_ok" and amount > 0:
        return Outcome(reference=f"charge-{operation_id}")
    return Outcome(failure_code="card_declined")
