"""The promotion, and the decision whether an order may use it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from markethall.orders.promotions.contract import (
    NewPromotion,
    PromotionAmount,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.orders.totals.domain import (
    AppliedDiscount,
    DiscountedOrder,
    PricedLine,
    PromotionRule,
)
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.lookup_key import to_lookup_key

# more active promotions without a code would make the price of every order slow
MAX_AUTOMATIC_PROMOTIONS: Final = 100
_PATH_SEPARATOR: Final = re.compile("[>\uff1e\ufe65]")
_NO_USES: Final[Mapping[UUID, int]] = MappingProxyType({})


class PromotionProblem(StrEnum):
    """The reason why an order cannot use a promotion."""

    UNKNOWN = "unknown"
    INACTIVE = "inactive"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    MIN_TOTAL = "min_total"
    FIRST_ORDER = "first_order"
    CUSTOMER_IDS = "customer_ids"
    LINES = "lines"
    DISCOUNT = "discount"
    USAGE_LIMIT = "usage_limit"
    PER_CUSTOMER_LIMIT = "per_customer_limit"


_LIMITS: Final = frozenset({PromotionProblem.USAGE_LIMIT, PromotionProblem.PER_CUSTOMER_LIMIT})
_REASONS: Final = frozenset(
    {
        PromotionProblem.UNKNOWN,
        PromotionProblem.INACTIVE,
        PromotionProblem.NOT_STARTED,
        PromotionProblem.ENDED,
    }
)


@dataclass(frozen=True)
class Promotion:
    """A promotion and its uses.

    `used` counts the orders that have the discount and are not cancelled or expired. Without a
    usage limit it is not kept up to date.
    """

    promotion_id: UUID
    fields: NewPromotion
    version: int
    created_at: datetime
    used: int = 0

    @property
    def code_key(self) -> str | None:
        return None if self.fields.code is None else voucher_key(self.fields.code)

    @property
    def is_automatic(self) -> bool:
        return self.fields.is_active and self.fields.code is None

    @property
    def needs_history(self) -> bool:
        """Whether earlier orders of the customer decide about this promotion."""
        return self.fields.conditions.first_order or self.fields.per_customer_limit is not None

    def change(self, fields: NewPromotion, used: int) -> "Promotion":
        return replace(self, fields=fields, used=used, version=self.version + 1)

    def to_rule(self, currency: str) -> PromotionRule | None:
        """Return the discount in this currency, or None if there is none."""
        conditions, fields = self.fields.conditions, self.fields
        min_total = _amount_in(currency, conditions.min_total)
        amount = _amount_in(currency, fields.amounts)
        if None in (min_total, amount):
            return None
        return PromotionRule(
            promotion_id=self.promotion_id,
            name=fields.name,
            kind=fields.kind,
            code=fields.code,
            percent=fields.percent_value,
            amount=amount or 0,
            buy_quantity=fields.buy_quantity or 1,
            get_quantity=fields.get_quantity or 1,
            min_total=min_total or 0,
            product_ids=frozenset(conditions.products),
            categories=frozenset(map(category_key, conditions.categories)),
            tags=frozenset(map(label_key, conditions.tags)),
            priority=fields.priority,
            stackable=fields.stackable,
        )


@dataclass(frozen=True)
class CustomerHistory:
    """The earlier orders of a customer that are not cancelled or expired.

    `uses` has the number of these orders by promotion; `voucher` is the promotion whose code the
    customer has given.
    """

    has_orders: bool = False
    uses: Mapping[UUID, int] = field(default_factory=lambda: _NO_USES)
    voucher: Promotion | None = None


@dataclass(frozen=True)
class PromotionRequest:
    """An order for which promotions are looked up."""

    customer_id: UUID
    currency: str
    lines: Sequence[PricedLine]
    voucher_code: str | None = None

    @property
    def subtotal(self) -> int:
        return sum(line.subtotal for line in self.lines)


@dataclass(frozen=True)
class ApplicablePromotions:
    """The discounts that an order may have, before they are compared with each other."""

    rules: tuple[PromotionRule, ...]
    # the promotion of the voucher
    voucher_id: UUID | None = None
    voucher_code: str | None = None

    def check_voucher(self, order: DiscountedOrder) -> None:
        """Raise VoucherInvalid if the voucher gives no discount, so that no use is recorded."""
        if self.voucher_code is None or self.voucher_id is None:
            return
        if self.voucher_id not in order.promotion_ids:
            raise voucher_error(self.voucher_code, PromotionProblem.DISCOUNT)


@dataclass(frozen=True)
class Redemption:
    """One use of each of these promotions, by an order."""

    order_id: UUID
    customer_id: UUID
    promotion_ids: tuple[UUID, ...]
    at: datetime
    # the order was expired and is paid late. Its price is agreed, so only the limits apply
    is_reinstatement: bool = False


class RedemptionFailed(Exception):
    """Promotions have no use left for the order. The transaction must be rolled back."""

    def __init__(self, problems: Mapping[UUID, PromotionProblem]) -> None:
        super().__init__(f"promotions have no use left: {problems}")
        self.problems = problems


def check_redeemed(redemption: Redemption, problems: Mapping[UUID, PromotionProblem]) -> None:
    """Raise RedemptionFailed if promotions have no use left; `problems` is by promotion.

    Promotions that were deleted are left out in a reinstatement.
    """
    if redemption.is_reinstatement:
        unknown = PromotionProblem.UNKNOWN
        problems = {key: one for key, one in problems.items() if one is not unknown}
    if problems:
        raise RedemptionFailed(problems)


def find_problem(
    promotion: Promotion, request: PromotionRequest, history: CustomerHistory, now: datetime
) -> PromotionProblem | None:
    """Return the first reason why the order cannot use the promotion."""
    fields = promotion.fields
    used_by_customer = history.uses.get(promotion.promotion_id, 0)
    if not fields.is_active:
        return PromotionProblem.INACTIVE
    if fields.starts_at and now < fields.starts_at:
        return PromotionProblem.NOT_STARTED
    if fields.ends_at and now >= fields.ends_at:
        return PromotionProblem.ENDED
    if fields.usage_limit is not None and promotion.used >= fields.usage_limit:
        return PromotionProblem.USAGE_LIMIT
    if fields.per_customer_limit is not None and used_by_customer >= fields.per_customer_limit:
        return PromotionProblem.PER_CUSTOMER_LIMIT
    return _find_unmet_condition(promotion, request, history)


def _find_unmet_condition(
    promotion: Promotion, request: PromotionRequest, history: CustomerHistory
) -> PromotionProblem | None:
    conditions, rule = promotion.fields.conditions, promotion.to_rule(request.currency)
    if conditions.customer_ids and request.customer_id not in conditions.customer_ids:
        return PromotionProblem.CUSTOMER_IDS
    if conditions.first_order and history.has_orders:
        return PromotionProblem.FIRST_ORDER
    if rule is None or request.subtotal < rule.min_total:
        return PromotionProblem.MIN_TOTAL
    if not any(map(rule.matches, request.lines)):
        return PromotionProblem.LINES
    return None


def voucher_error(code: str, problem: PromotionProblem) -> DomainError:
    """Build the error of an order that names this voucher."""
    if problem in _LIMITS:
        return VoucherExhausted(voucher_code=code, limit=problem.value)
    is_reason = problem in _REASONS
    return VoucherInvalid(
        voucher_code=code,
        reason=problem.value if is_reason else "conditions_not_met",
        condition=None if is_reason else problem.value,
    )


def find_voucher_error(
    failure: RedemptionFailed, discounts: Sequence[AppliedDiscount]
) -> DomainError | None:
    """Return the error if the voucher of the order failed, None if only automatic ones did."""
    return next(
        (
            voucher_error(discount.code, failure.problems[discount.promotion_id])
            for discount in discounts
            if discount.code is not None and discount.promotion_id in failure.problems
        ),
        None,
    )


def voucher_key(code: str) -> str:
    """Return the key by which codes are compared."""
    return to_lookup_key(code).strip()


def label_key(label: str) -> str:
    """Return the key by which tags are compared."""
    return " ".join(to_lookup_key(label).split())


def category_key(category: str) -> str:
    """Return the key by which categories are compared."""
    return " > ".join(_path_names(category))


def category_keys(category: str) -> frozenset[str]:
    """Return the keys of a category and of the categories above it on its path."""
    names = list(_path_names(category))
    return frozenset(" > ".join(names[:count]) for count in range(1, len(names) + 1))


def _path_names(category: str) -> Iterator[str]:
    return filter(None, (label_key(name) for name in _PATH_SEPARATOR.split(category)))


def _amount_in(currency: str, amounts: Sequence[PromotionAmount]) -> int | None:
    """Return 0 if there are no amounts, and None if there is none in this currency."""
    if not amounts:
        return 0
    return next((one.amount for one in amounts if one.currency == currency), None)
