"""Add postings to the ledger, and count their amounts in the metrics."""

from collections.abc import Iterable
from typing import Final

from markethall.payments.contract import PostingKind
from markethall.payments.domain import Posting
from markethall.payments.ports import Store
from markethall.shared.observability.metrics import PAYMENT_AMOUNT, PAYMENT_MOVEMENTS

_COUNTED_KINDS: Final = (PostingKind.CAPTURE, PostingKind.REFUND)


async def add_postings(store: Store, postings: Iterable[Posting]) -> None:
    """Add the postings. The metrics count captures and refunds if the transaction commits."""
    for posting in postings:
        await store.add_posting(posting)
        count_posting(store, posting)


def count_posting(store: Store, posting: Posting) -> None:
    """Count the posting in the metrics if the transaction commits. Only some kinds are counted."""
    if posting.kind not in _COUNTED_KINDS:
        return
    # both kinds get a value for the currency, because Prometheus cannot subtract a series that does
    # not exist
    for kind in _COUNTED_KINDS:
        PAYMENT_AMOUNT.labels(kind.value, posting.currency)
        PAYMENT_MOVEMENTS.labels(kind.value, posting.currency)
    labels = posting.kind.value, posting.currency
    store.count_on_commit(PAYMENT_MOVEMENTS.labels(*labels), 1)
    store.count_on_commit(PAYMENT_AMOUNT.labels(*labels), posting.moved_amount)
