"""The hash chains of the ledger, which show that a posting was changed, removed or inserted.

Each posting belongs to one of CHAIN_COUNT chains and has the next sequence number of its chain. Its
hash is the SHA-256 of the previous hash and of its own content. There are several chains, because
the postings of one chain wait for each other: the head of the chain is locked until the commit.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from uuid import UUID

from markethall.payments.domain.ledger import Posting

CHAIN_COUNT: Final = 16
# the previous hash of the first posting of a chain
GENESIS_HASH: Final = bytes(32)


@dataclass(frozen=True)
class ChainPosition:
    """The place of a posting in its chain. `sequence` begins with 1 and has no gaps."""

    chain: int
    sequence: int
    hash: bytes


@dataclass(frozen=True)
class RecordedPosting:
    """A posting as it is stored."""

    posting: Posting
    position: ChainPosition


def chain_of(payment_id: UUID) -> int:
    """Return the chain of all postings of a payment."""
    return payment_id.int % CHAIN_COUNT


def next_position(chain: int, head: ChainPosition | None, posting: Posting) -> ChainPosition:
    """Return the position of a posting after the head of its chain; None: the chain is empty."""
    sequence, previous_hash = (head.sequence, head.hash) if head else (0, GENESIS_HASH)
    return ChainPosition(chain, sequence + 1, hash_posting(previous_hash, posting))


def hash_posting(previous_hash: bytes, posting: Posting) -> bytes:
    return hashlib.sha256(previous_hash + canonical_content(posting)).digest()


def canonical_content(posting: Posting) -> bytes:
    """Return the bytes that are hashed: a JSON array of all fields, with the entries by account.

    The format must not change, because the hashes of stored postings depend on it.
    """
    fields = [
        str(posting.posting_id),
        str(posting.payment_id),
        str(posting.operation_id),
        posting.kind.value,
        posting.currency,
        sorted(posting.entries),
        posting.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
    ]
    return json.dumps(fields, separators=(",", ":")).encode()
