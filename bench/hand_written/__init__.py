"""A hand-written purchase with the guarantees of the application, in the fewest statements.

Two endpoints on FastAPI and asyncpg, `POST /orders` (one line per order) and
`POST /payments/{id}/confirm`. It imports of the application only the function for new ids. The
guarantees:

- A signed token (EdDSA, PyJWT) authenticates the customer. A cached token is still checked for its
  expiry. A deactivated customer cannot order.
- Pydantic models validate the bodies, and the responses are serialized from models.
- An idempotency key belongs to a customer and to the hash of a request: a repeat gets the stored
  response, also that of a rejection, and another request with this key gets 422.
- An order stores the sku, name and price of the product at its time.
- The stock never becomes negative. The unpaid orders of a customer, and the customer's unpaid units
  of a product, have limits, also under concurrency.
- Order, line, timeline entry, reservation, payment, event and response are written by one
  statement: all of them or none.
- The status of a payment changes only by allowed transitions. One transaction before the call of
  the provider records an operation, one after it records the outcome. After a crash between them, a
  retry or a periodic job calls the provider again with the same operation id.
- A captured payment has a posting whose entries sum to zero; Postgres rejects others at commit.
- CHECK constraints and foreign keys are on all tables.
- Events are in an outbox, and have their effect exactly once: a captured payment makes its order
  paid, with an invoice and a timeline entry; a paid order commits its reservation. Numbers of
  invoices have no gap.
- Nothing waits forever: unpaid orders expire, and the expiry releases stock and limits.

There are no metrics, logs and rate limits, and none of the other features of the application.
"""
