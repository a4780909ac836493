"""Open the payment of an order."""

from markethall.payments.contract.errors import UnknownPaymentMethod
from markethall.payments.contract.internal import OpenPayment, PaymentSummary
from markethall.payments.domain.operation import FREE_METHOD
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.saved_methods import SavedMethods
from markethall.payments.service.views import to_payment_summary
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database


class OpenPayments:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        saved_methods: SavedMethods,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._saved_methods = saved_methods
        self._clock = clock

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        """Raises OrderHasPayment, UnknownPaymentMethod."""
        await self._check_method(ctx, command)
        payment = Payment(
            payment_id=command.payment_id,
            order_id=command.order_id,
            replaces=command.replaces,
            is_additional=command.is_additional,
            user_id=command.user_id,
            currency=command.amount.currency,
            country=command.country,
            amount=command.amount.amount,
            expires_at=command.expires_at,
            created_at=self._clock(),
            provider=self._provider.default_provider if command.amount.amount else FREE_METHOD,
        )
        if ctx.actor.is_guest:
            return to_payment_summary(await self._open_for_guest(payment))
        async with self._database.autocommit() as store:
            return to_payment_summary(await store.open_payment(payment))

    async def _check_method(self, ctx: CallContext, command: OpenPayment) -> None:
        """Raise UnknownPaymentMethod if the customer could not confirm with the named method.

        A payment of zero accepts any method.
        """
        method = command.payment_method
        if method is None or not command.amount.amount:
            return
        chosen = await self._saved_methods.choose(
            ctx, method, save_method=False, operation_id=command.payment_id
        )
        if chosen.provider == FREE_METHOD:
            raise UnknownPaymentMethod(payment_method=method)
        self._provider.check_offered(chosen.method, command.amount, command.country)

    async def _open_for_guest(self, payment: Payment) -> Payment:
        async with self._database.transaction() as store:
            # the owner is the user if the guest was claimed after the checkout began
            owner = await store.get_guest_owner_for_update(payment.user_id)
            payment.user_id = owner or payment.user_id
            return await store.open_payment(payment)
