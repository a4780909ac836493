"""Random purchases from lines and carts, with vouchers; guests place orders and are claimed."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from markethall.orders.carts.contract import CartVoucherChange, MergeCart
from markethall.orders.contract import OrderView, PlaceOrder
from markethall.orders.drafts.contract import NewDraftOrder
from markethall.users.contract import GuestClaimed
from tests.orders.carts.conftest import (
    ANY_VERSION,
    change_cart,
    check_out,
    create_cart,
    get_cart,
    set_line,
)
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.lifecycle.amounts import CODES, VOUCHERS, Units, calculate
from tests.orders.lifecycle.machine import (
    ADDRESS,
    CHOICES,
    MAX_CARTS,
    MAX_ORDERS,
    PRODUCTS,
    QUANTITIES,
    ShopMachine,
)
from tests.orders.lifecycle.model import BUYER, GUEST, OTHER, ModelCart

CUSTOMERS = st.sampled_from([BUYER, OTHER, GUEST])
EMAIL = "buyer@example.com"


class OrderRules(ShopMachine):
    """Orders from lines, without a cart. Staff create and complete draft orders."""

    @precondition(lambda self: len(self.placed) < MAX_ORDERS)
    @rule(customer=CUSTOMERS, units=QUANTITIES, code=st.sampled_from(CODES), by_staff=st.booleans())
    def place(self, customer: int, units: Units, code: str | None, by_staff: bool) -> None:
        self._place_order(customer, units, code, by_staff)

    @precondition(lambda self: len(self.placed) < MAX_ORDERS)
    @rule(
        customer=CUSTOMERS,
        units=QUANTITIES,
        code=st.sampled_from(CODES),
        is_authorized=st.booleans(),
    )
    def buy(self, customer: int, units: Units, code: str | None, is_authorized: bool) -> None:
        """Place an order and pay it."""
        before = len(self.placed)
        self._place_order(customer, units, code, by_staff=False)
        for placed in self.placed[before:]:
            self.pay_order(placed, is_authorized)

    def _place_order(self, customer: int, units: Units, code: str | None, by_staff: bool) -> None:
        owner = self.owner(customer)
        fields = {
            "lines": self.lines_of(units),
            "shipping_address": ADDRESS,
            "email": EMAIL,
            "voucher_code": code,
        }
        accepted = self.model.place(owner, units, code, self.app.clock())
        placing = self._complete_draft if by_staff else self._place
        if order := self.check(placing(owner, fields), accepted):
            self.add_order(order)

    async def _place(self, customer: int, fields: dict[str, Any]) -> OrderView:
        command = PlaceOrder.model_validate(fields)
        ctx = self.buyer_context(customer)
        return await self.app.orders.place(ctx, command, attempt_without_key())

    async def _complete_draft(self, customer: int, fields: dict[str, Any]) -> OrderView:
        drafts = self.app.container.draft_orders()
        new = NewDraftOrder.model_validate(
            fields | {"customer_id": self.buyer_context(customer).actor.user_id}
        )
        draft = await drafts.create(STAFF, new, attempt_without_key())
        return await drafts.complete(STAFF, draft.draft_order_id, attempt_without_key())

    def owner(self, customer: int) -> int:
        """Return the customer, or the buyer if the customer is a claimed guest."""
        is_claimed = self.customers[customer] is self.customers[BUYER]
        return BUYER if is_claimed else customer

    @precondition(lambda self: self.has_of_guest())
    @rule()
    def claim_guest(self) -> None:
        buyer, guest = self.buyer_context(BUYER), self.buyer_context(GUEST)
        event = GuestClaimed(guest_id=guest.user_id, user_id=buyer.user_id)
        self.run(self.app.receive_event(event))
        self.settle()
        self.claim(GUEST)

    def has_of_guest(self) -> bool:
        """Tell whether the guest has an order or a cart."""
        customers = [order.customer for order in self.model.orders]
        return GUEST in [*customers, *(cart.customer for _, cart in self.carts)]


class CartRules(OrderRules):
    @precondition(lambda self: len(self.carts) < MAX_CARTS)
    @rule(customer=CUSTOMERS, units=QUANTITIES, has_address=st.booleans())
    def create_cart(self, customer: int, units: Units, has_address: bool) -> None:
        owner = self.owner(customer)
        lines = [(self.products[index], number) for index, number in units.items()]
        fields = {"shipping_address": ADDRESS} if has_address else {}
        ctx = self.buyer_context(owner)
        creating = create_cart(self.app, *lines, ctx=ctx, email=EMAIL, **fields)
        if cart := self.check(creating, accepted=True):
            self.carts.append((cart, ModelCart(owner, dict(units), has_address)))

    @precondition(lambda self: self.carts)
    @rule(choice=CHOICES, index=PRODUCTS, quantity=st.integers(0, 4))
    def set_cart_line(self, choice: int, index: int, quantity: int) -> None:
        cart, expected = self.carts[choice % len(self.carts)]
        ctx, product_id = self.buyer_context(expected.customer), self.products[index]
        if quantity:
            setting = set_line(self.app, cart, product_id, quantity, ctx)
            if self.check(setting, expected.is_open):
                expected.units[index] = quantity
        else:
            carts = self.app.container.carts()
            removing = carts.remove_line(ctx, cart.cart_id, product_id, ANY_VERSION)
            if self.check(removing, expected.is_open):
                expected.units.pop(index, None)

    @precondition(lambda self: self.carts)
    @rule(choice=CHOICES)
    def give_address(self, choice: int) -> None:
        cart, expected = self.carts[choice % len(self.carts)]
        ctx = self.buyer_context(expected.customer)
        changing = change_cart(self.app, cart, ctx, shipping_address=ADDRESS)
        if self.check(changing, expected.is_open):
            expected.has_address = True

    @precondition(lambda self: self.carts)
    @rule(choice=CHOICES, code=st.sampled_from(tuple(VOUCHERS)))
    def give_voucher(self, choice: int, code: str) -> None:
        cart, expected = self.carts[choice % len(self.carts)]
        if not expected.has_address:
            return  # without an address, the cart may have no price for shipping yet
        ctx, now = self.buyer_context(expected.customer), self.app.clock()
        can_use = not expected.units or self.model.can_use(
            code, expected.customer, expected.units, now
        )
        change = CartVoucherChange(code=code)
        setting = self.app.container.carts().set_voucher(ctx, cart.cart_id, change, ANY_VERSION)
        if self.check(setting, expected.is_open and can_use):
            expected.voucher = code

    @precondition(lambda self: len(self.carts) > 1)
    @rule(choice=CHOICES)
    def merge_carts(self, choice: int) -> None:
        """Merge two carts of one customer. The target takes the other voucher if it has none."""
        cart, expected = self.carts[choice % len(self.carts)]
        source, absorbed = self.carts[(choice + 1) % len(self.carts)]
        if expected.customer != absorbed.customer:
            return
        merging = self.app.container.cart_merges().merge(
            self.buyer_context(expected.customer),
            cart.cart_id,
            MergeCart(source_cart_id=source.cart_id),
            ANY_VERSION,
            attempt_without_key(),
        )
        is_repeated = absorbed.merged_into is expected
        accepted = expected.is_open and absorbed.is_open
        if self.check(merging, accepted or is_repeated) and not is_repeated:
            absorbed.is_open, absorbed.merged_into = False, expected
            expected.has_address |= absorbed.has_address
            expected.voucher = expected.voucher or absorbed.voucher
            for index, number in absorbed.units.items():
                expected.units[index] = expected.units.get(index, 0) + number

    @precondition(lambda self: self.carts and len(self.placed) < MAX_ORDERS)
    @rule(choice=CHOICES)
    def check_out(self, choice: int) -> None:
        cart, expected = self.carts[choice % len(self.carts)]
        ctx = self.buyer_context(expected.customer)
        self.look_at(choice)
        accepted = self.model.check_out(expected, self.app.clock())
        if order := self.check(check_out(self.app, cart, ctx), accepted):
            self.add_order(order)

    def look_at(self, choice: int) -> None:
        """Compare the total of a cart with the model."""
        cart, expected = self.carts[choice % len(self.carts)]
        if not (expected.is_open and expected.units and expected.has_address):
            return
        now, customer = self.app.clock(), expected.customer
        view = self.run(get_cart(self.app, cart, self.buyer_context(customer)))
        can_use = self.model.can_use(expected.voucher, customer, expected.units, now)
        amounts = calculate(expected.units, expected.voucher if can_use else None)
        assert view.totals is not None
        assert view.totals.total.amount == amounts.total
