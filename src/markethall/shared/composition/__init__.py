"""The storage of a context, put together from persistence, messaging and idempotency."""
