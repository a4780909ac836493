"""The balance transactions of the fake Stripe account."""

from datetime import UTC, datetime
from typing import Final

from tests.payments.stripe_account import Json

_CREATED: Final = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())
_PAGE_SIZE: Final = 2


class BalanceOfAccount:
    """Derives the balance transactions from the intents and refunds of the account."""

    intents: dict[str, Json]
    refunds: dict[str, Json]
    fee_of_charge: int

    def __init__(self) -> None:
        super().__init__()
        # for tests: `created` has times by the id of an intent or refund
        self.created: dict[str, int] = {}
        self.other_transactions: list[Json] = []

    def transactions(self) -> list[Json]:
        """Return all transactions, the newest first."""
        found = [
            *(self._of_intent(one) for one in self.intents.values() if one["amount_received"]),
            *(self._of_refund(one) for one in self.refunds.values() if one["status"] != "failed"),
            *self.other_transactions,
        ]
        return sorted(found, key=lambda one: (one["created"], one["id"]), reverse=True)

    def build_transaction(self, category: str, source: Json, fee: int = 0) -> Json:
        id_ = source["id"]
        return {
            "id": f"txn_{id_}",
            "object": "balance_transaction",
            "amount": source.get("amount", 0),
            "created": self.created.get(id_, _CREATED),
            "currency": source.get("currency", "eur"),
            "fee": fee,
            "reporting_category": category,
            "type": category,
            "source": source,
        }

    def _of_intent(self, intent: Json) -> Json:
        charge = {
            "id": f"ch_{intent['id']}",
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": intent["amount_received"],
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            # Stripe copies the metadata when the intent is confirmed, before the capture adds its
            # id
            "metadata": {
                name: value
                for name, value in intent["metadata"].items()
                if name != "markethall_capture_id"
            },
        }
        transaction = self.build_transaction("charge", charge, self.fee_of_charge)
        return transaction | {"created": self.created.get(intent["id"], _CREATED)}

    def _of_refund(self, refund: Json) -> Json:
        return self.build_transaction("refund", refund)

    def _list_balance(self, _: str, parameters: Json) -> Json:
        """List two on a page, so that the client must read several pages."""
        assert parameters["expand"] == {"0": "data.source"}
        created = {name: int(value) for name, value in parameters["created"].items()}
        found = [
            one for one in self.transactions() if created["gte"] <= one["created"] < created["lt"]
        ]
        if after := parameters.get("starting_after"):
            ids = [one["id"] for one in found]
            found = found[ids.index(after) + 1 :]
        has_more = len(found) > _PAGE_SIZE
        return {"object": "list", "data": found[:_PAGE_SIZE], "has_more": has_more}
