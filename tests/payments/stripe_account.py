"""A fake of a Stripe account: its PaymentIntents and refunds, and the events about them."""

import copy
from itertools import count
from typing import Any, Final

Json = dict[str, Any]

DECLINES: Final = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", None),
}


class StripeError(Exception):
    def __init__(self, status: int, type_: str, code: str | None = None, **fields: Any) -> None:
        self.status = status
        self.body: Json = {
            "error": {"type": type_, "message": "a message", **fields}
            | ({"code": code} if code else {})
        }


class StripeAccount:
    """The state of a fake account, with one method per kind of API request.

    The methods have the form `_name(id_in_the_path, parameters)`; `_route` in stripe_server.py maps
    a path to such a name.
    """

    def __init__(self) -> None:
        self.intents: dict[str, Json] = {}
        self.refunds: dict[str, Json] = {}
        self.customers: dict[str, Json] = {}
        self.methods: dict[str, Json] = {}
        self.disputes: dict[str, Json] = {}
        self.events: list[Json] = []
        self.search_is_behind = False
        self.fee_of_charge = 30
        # for tests: the currency of the balance; None means the currency of the charge
        self.settlement_currency: str | None = None
        # for tests: if true, answers contain no fee, because the charge is booked later
        self.books_late = False
        self._ids = count(1)

    # Methods for tests

    def totals(self, payment_id: object) -> tuple[int, int, int]:
        """Return the number of charges of a payment, and the captured and refunded amounts."""
        intents = [
            one for one in self.intents.values()
            if one["metadata"].get("markethall_payment_id") == str(payment_id)
        ]  # fmt: skip
        ids = {one["id"] for one in intents}
        refunds = [one for one in self.refunds.values() if one["payment_intent"] in ids]
        return (
            sum(one["amount_received"] > 0 for one in intents),
            sum(one["amount_received"] for one in intents),
            sum(one["amount"] for one in refunds if one["status"] == "succeeded"),
        )

    def intent_of(self, operation_id: object) -> Json:
        """Return the intent of a charge or authorization."""
        (intent,) = [
            one for one in self.intents.values()
            if one["metadata"].get("markethall_operation_id") == str(operation_id)
        ]  # fmt: skip
        return intent

    def finish_action(self, intent: Json, *, decline: str | None = None) -> None:
        """Let the customer authenticate; if `decline` has an error code, the charge is declined."""
        if decline:
            self._decline(intent, decline, None)
        else:
            self._approve(intent)

    def require_action(self, intent: Json) -> None:
        """Let the customer try another card in the browser, which requires authentication."""
        self._require_action(intent, {"use_stripe_sdk": "true"})

    def build_event(self, type_: str, object_: Json) -> Json:
        return {
            "id": f"evt_{next(self._ids)}",
            "object": "event",
            "type": type_,
            "created": 1,
            "livemode": False,
            "data": {"object": copy.deepcopy(object_)},
        }

    # Customers and PaymentMethods

    def _create_customer(self, _: str, parameters: Json) -> Json:
        customer = {"id": f"cus_{next(self._ids)}", "object": "customer"} | parameters
        self.customers[customer["id"]] = customer
        return customer

    def delete_customer(self, id_: str) -> None:
        """Delete a customer as in the dashboard, which also detaches its cards."""
        self.customers[id_] = {"id": id_, "object": "customer", "deleted": True}
        for method in self.methods.values():
            if method["customer"] == id_:
                method["customer"] = None

    def _get_customer(self, id_: str, _: Json) -> Json:
        if id_ not in self.customers:
            raise StripeError(404, "invalid_request_error", "resource_missing")
        return self.customers[id_]

    def _check_customer(self, id_: str | None) -> None:
        if id_ and self.customers.get(id_, {"deleted": True}).get("deleted"):
            raise StripeError(400, "invalid_request_error", "resource_missing")

    def _get_method(self, id_: str, _: Json) -> Json:
        if id_ not in self.methods:
            raise StripeError(404, "invalid_request_error", "resource_missing")
        return self.methods[id_]

    def _detach(self, id_: str, _: Json) -> Json:
        method = self._get_method(id_, {})
        if method["customer"] is None:
            raise StripeError(400, "invalid_request_error")
        method["customer"] = None
        return method

    def _use_method(self, intent: Json, id_: str) -> None:
        """Set the method of the intent. A known method must belong to the intent's customer."""
        method = self.methods.get(id_)
        if method is None:
            new_id = f"pm_{next(self._ids)}"
            card = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}
            method = {"id": new_id, "object": "payment_method", "customer": None, "card": card}
            self.methods[new_id] = method
        elif method["customer"] is None or method["customer"] != intent["customer"]:
            raise StripeError(400, "invalid_request_error")
        intent["payment_method"] = method["id"]

    def _attach_method(self, intent: Json) -> None:
        """Attach the card to the customer if the intent has `setup_future_usage`."""
        options = intent["payment_method_options"].get("card", {})
        if options.get("setup_future_usage") and intent["payment_method"]:
            self.methods[intent["payment_method"]]["customer"] = intent["customer"]

    def _expand(self, intent: Json, parameters: Json) -> Json:
        expanded = parameters.get("expand", {}).values()
        method = self.methods.get(intent["payment_method"] or "")
        objects = {"payment_method": method} if "payment_method" in expanded else {}
        if "latest_charge.balance_transaction" in expanded and intent["latest_charge"]:
            objects["latest_charge"] = self._expand_charge(intent)
        return intent | objects

    def _expand_charge(self, intent: Json) -> Json:
        currency = self.settlement_currency or intent["currency"]
        is_booked = intent["amount_received"] > 0 and not self.books_late
        booked = {"object": "balance_transaction", "fee": self.fee_of_charge, "currency": currency}
        return {
            "id": intent["latest_charge"],
            "object": "charge",
            "balance_transaction": booked if is_booked else None,
        }

    # Disputes

    def open_dispute(self, intent: Json, **fields: Any) -> Json:
        dispute = {
            "id": f"dp_{next(self._ids)}",
            "object": "dispute",
            "payment_intent": intent["id"],
            "status": "needs_response",
            "reason": "fraudulent",
            "amount": intent["amount_received"],
            "currency": intent["currency"],
            "created": next(self._ids),
            "evidence_details": {"due_by": 1_800_000_000},
        } | fields
        self.disputes[dispute["id"]] = dispute
        self._emit("charge.dispute.created", dispute)
        return dispute

    def change_dispute(self, dispute: Json, change: str, **fields: Any) -> None:
        dispute |= fields
        self._emit(f"charge.dispute.{change}", dispute)

    def _get_dispute(self, id_: str, parameters: Json) -> Json:
        if id_ not in self.disputes:
            raise StripeError(404, "invalid_request_error", "resource_missing")
        dispute = self.disputes[id_]
        intent = self.intents.get(dispute["payment_intent"])
        is_expanded = "payment_intent" in parameters.get("expand", {}).values()
        return dispute | ({"payment_intent": intent} if is_expanded and intent else {})

    # PaymentIntents

    def _create(self, _: str, parameters: Json) -> Json:
        amount = int(parameters["amount"])
        if amount < 1:
            raise StripeError(400, "invalid_request_error", "amount_too_small")
        self._check_customer(parameters.get("customer"))
        intent = {
            "id": f"pi_{next(self._ids)}",
            "object": "payment_intent",
            "status": "requires_payment_method",
            "amount": amount,
            "amount_received": 0,
            "currency": parameters["currency"],
            "capture_method": parameters["capture_method"],
            "cancellation_reason": None,
            "client_secret": f"pi_{next(self._ids)}_secret_1",
            "latest_charge": None,
            "last_payment_error": None,
            "metadata": parameters["metadata"],
            "next_action": None,
            "customer": parameters.get("customer"),
            "payment_method": None,
            "payment_method_options": parameters.get("payment_method_options", {}),
            "payment_method_types": parameters["payment_method_types"],
        }
        self.intents[intent["id"]] = intent
        return intent

    def _get(self, id_: str, parameters: Json) -> Json:
        if id_ not in self.intents:
            raise StripeError(404, "invalid_request_error", "resource_missing")
        if "expand" in parameters:
            return self._expand(self.intents[id_], parameters)
        return self.intents[id_]

    def _search(self, _: str, parameters: Json) -> Json:
        key, value = parameters["query"].removeprefix("metadata['").removesuffix("'").split("']:'")
        found = [one for one in self.intents.values() if one["metadata"].get(key) == value]
        return {"object": "search_result", "data": [] if self.search_is_behind else found}

    def _update(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        intent["metadata"] |= parameters["metadata"]
        return intent

    def _confirm(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(intent, "requires_payment_method", "requires_confirmation")
        method = parameters.get("payment_method") or parameters["confirmation_token"]
        if method == "pm_missing":
            raise StripeError(400, "invalid_request_error", "resource_missing")
        if method in DECLINES:
            error = self._decline(intent, *DECLINES[method])
            raise StripeError(402, **error, payment_intent=intent)
        self._use_method(intent, method)
        if method == "pm_card_authenticationRequired":
            self._require_action(intent, parameters)
        elif method == "pm_processing":
            intent["status"] = "processing"
        else:
            self._approve(intent)
        return self._expand(intent, parameters)

    def _capture(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(intent, "requires_capture")
        amount = int(parameters["amount_to_capture"])
        if not 0 < amount <= intent["amount"]:
            raise StripeError(400, "invalid_request_error", "amount_too_large")
        intent["metadata"] |= parameters["metadata"]
        intent |= {"status": "succeeded", "amount_received": amount}
        self._emit("payment_intent.succeeded", intent)
        return self._expand(intent, parameters)

    def _cancel(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(
            intent, "requires_payment_method", "requires_confirmation", "requires_action",
            "requires_capture",
        )  # fmt: skip
        intent |= {
            "status": "canceled",
            "cancellation_reason": parameters["cancellation_reason"],
            "next_action": None,
        }
        self._emit("payment_intent.canceled", intent)
        return intent

    def _require_status(self, intent: Json, *statuses: str) -> None:
        if intent["status"] not in statuses:
            raise StripeError(
                400, "invalid_request_error", "payment_intent_unexpected_state",
                payment_intent=intent,
            )  # fmt: skip

    def _approve(self, intent: Json) -> None:
        self._attach_method(intent)
        intent |= {
            "latest_charge": f"ch_{next(self._ids)}",
            "last_payment_error": None,
            "next_action": None,
        }
        if intent["capture_method"] == "manual":
            intent["status"] = "requires_capture"
            self._emit("payment_intent.amount_capturable_updated", intent)
        else:
            intent |= {"status": "succeeded", "amount_received": intent["amount"]}
            self._emit("payment_intent.succeeded", intent)

    def _decline(self, intent: Json, code: str, decline_code: str | None) -> Json:
        error = {"type_": "card_error", "code": code, "decline_code": decline_code}
        intent |= {
            "status": "requires_payment_method",
            "latest_charge": f"ch_{next(self._ids)}",
            "last_payment_error": {
                "type": "card_error",
                "code": code,
                "decline_code": decline_code,
            },
            "next_action": None,
        }
        self._emit("payment_intent.payment_failed", intent)
        return error

    def _require_action(self, intent: Json, parameters: Json) -> None:
        action: Json = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
        if "return_url" in parameters:
            url = f"https://hooks.stripe.com/{intent['id']}?to={parameters['return_url']}"
            action = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
        intent |= {"status": "requires_action", "next_action": action}
        self._emit("payment_intent.requires_action", intent)

    # Refunds

    def _refund(self, _: str, parameters: Json) -> Json:
        intent = self._get(parameters["payment_intent"], {})
        refunded = sum(
            one["amount"] for one in self.refunds.values() if one["payment_intent"] == intent["id"]
        )
        amount = int(parameters["amount"])
        if refunded and refunded == intent["amount_received"]:
            raise StripeError(400, "invalid_request_error", "charge_already_refunded")
        if not 0 < amount <= intent["amount_received"] - refunded:
            raise StripeError(400, "invalid_request_error")
        refund = {
            "id": f"re_{next(self._ids)}",
            "object": "refund",
            "status": "succeeded",
            "amount": amount,
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            "metadata": parameters["metadata"],
        }
        self.refunds[refund["id"]] = refund
        self._emit("refund.created", refund)
        return refund

    def _list_refunds(self, _: str, parameters: Json) -> Json:
        """List the newest first, two on a page, so that the client must read several pages."""
        found = [
            one for one in reversed(self.refunds.values())
            if one["payment_intent"] == parameters["payment_intent"]
        ]  # fmt: skip
        if after := parameters.get("starting_after"):
            ids = [one["id"] for one in found]
            found = found[ids.index(after) + 1 :]
        return {"object": "list", "data": found[:2], "has_more": len(found) > 2}

    def _emit(self, type_: str, object_: Json) -> None:
        self.events.append(self.build_event(type_, object_))
