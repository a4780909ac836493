"""The Prometheus metrics; docs/metrics.md lists all of them."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

REQUESTS = Counter(
    "markethall_http_requests",
    "Requests, by method, route template and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
LATENCY = Histogram(
    "markethall_http_request_seconds",
    "Time from the request headers to the end of the response.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
# cached, because the `labels` method of prometheus_client takes a lock
request_counter = lru_cache(maxsize=4096)(REQUESTS.labels)
latency_histogram = lru_cache(maxsize=1024)(LATENCY.labels)
IN_FLIGHT = Gauge("markethall_http_in_flight", "Requests in progress.", registry=REGISTRY)
STATEMENTS = Counter(
    "markethall_db_statements", "SQL statements sent, less BEGIN and COMMIT.", registry=REGISTRY
)
REDIS_AVAILABLE = Gauge(
    "markethall_redis_available",
    "1 while Redis answers; 0 if it does not, or none is configured.",
    registry=REGISTRY,
)
CACHE_LOOKUPS = Counter(
    "markethall_cache",
    "Cache lookups, by cache and outcome.",
    ["cache", "outcome"],
    registry=REGISTRY,
)
RPC_CLIENT_CALLS = Counter(
    "markethall_rpc_client_calls",
    "Calls of another context's contract, by outcome: ok, or the code of the error.",
    ["target", "method", "outcome"],
    registry=REGISTRY,
)
RPC_CLIENT_ATTEMPTS = Counter(
    "markethall_rpc_client_attempts",
    "Requests sent to another context, retries included.",
    ["target", "method"],
    registry=REGISTRY,
)
RPC_CLIENT_CIRCUIT_OPEN = Gauge(
    "markethall_rpc_client_circuit_open",
    "1 while the circuit to another context is open.",
    ["target"],
    registry=REGISTRY,
)
EVENTS_RELAYED = Counter(
    "markethall_events_relayed", "Events relayed from an outbox.", ["context"], registry=REGISTRY
)
EVENTS_HANDLED = Counter(
    "markethall_events_handled",
    "Events handled, by handler and outcome.",
    ["handler", "outcome"],
    registry=REGISTRY,
)
STREAM_ENTRIES = Counter(
    "markethall_stream_entries",
    "Entries of a publisher's stream that were added, consumed into an inbox, or trimmed.",
    ["publisher", "what"],
    registry=REGISTRY,
)
STREAM_UNAVAILABLE = Gauge(
    "markethall_stream_unavailable",
    "1 while this process cannot publish to, or consume from, a publisher's stream.",
    ["publisher", "direction"],
    registry=REGISTRY,
)
STREAM_REPUBLISHED = Counter(
    "markethall_stream_republished",
    "Events published again because the stream had lost them.",
    ["publisher"],
    registry=REGISTRY,
)
LEADER = Gauge(
    "markethall_leader",
    "1 while this process is the leader of a context's background work.",
    ["context"],
    registry=REGISTRY,
)
OUTBOX_UNPUBLISHED = Gauge(
    "markethall_outbox_unpublished",
    "Events of a context that are committed, but not relayed; counted by its leader.",
    ["context"],
    registry=REGISTRY,
)
OUTBOX_LAG = Gauge(
    "markethall_outbox_lag_seconds",
    "Age of the oldest event of a context that is committed, but not relayed.",
    ["context"],
    registry=REGISTRY,
)
INBOX_WAITING = Gauge(
    "markethall_inbox_waiting",
    "Deliveries to a context that are not processed; counted by its leader.",
    ["context"],
    registry=REGISTRY,
)
INBOX_LAG = Gauge(
    "markethall_inbox_lag_seconds",
    "Time since the oldest delivery to a context was due that is not processed.",
    ["context"],
    registry=REGISTRY,
)
ORDERS = Counter(
    "markethall_orders",
    "Orders that were placed, paid, cancelled, expired or completed.",
    ["change"],
    registry=REGISTRY,
)
RESERVATIONS_EXPIRED = Counter(
    "markethall_reservations_expired",
    "Reservations whose stock was released, because they were not paid in time.",
    registry=REGISTRY,
)
PAYMENT_MOVEMENTS = Counter(
    "markethall_payment_movements",
    "Captures and refunds that have succeeded.",
    ["kind", "currency"],
    registry=REGISTRY,
)
PAYMENT_AMOUNT = Counter(
    "markethall_payment_amount_minor_units",
    "Sum of the captures and of the refunds that have succeeded.",
    ["kind", "currency"],
    registry=REGISTRY,
)
PROVIDER_CONFLICTS = Counter(
    "markethall_provider_conflicts",
    "Answers of the payment provider that contradict a settled operation; staff must settle them.",
    ["kind"],
    registry=REGISTRY,
)
ORDER_CAPTURE_FAILURES = Counter(
    "markethall_order_capture_failures",
    "Shipments whose price could not be captured; staff must get the money.",
    registry=REGISTRY,
)
PROVIDER_CIRCUIT_OPEN = Gauge(
    "markethall_provider_circuit_open",
    "1 while the circuit to a payment provider is open.",
    ["provider"],
    registry=REGISTRY,
)
PROVIDER_WEBHOOKS = Counter(
    "markethall_provider_webhooks",
    "Webhook events by result: applied, superseded, refunded, or dead (for staff).",
    ["provider", "result"],
    registry=REGISTRY,
)
RECONCILIATION_DIFFERENCES = Gauge(
    "markethall_reconciliation_differences",
    "Differences between our operations and the provider's report of the last compared day.",
    ["provider", "reason"],
    registry=REGISTRY,
)
DISPUTE_CHANGES = Counter(
    "markethall_payment_dispute_changes",
    "Changes of the disputes of payments, by the status after the change.",
    ["provider", "status"],
    registry=REGISTRY,
)
RATE_LIMITED = Counter(
    "markethall_rate_limited", "Requests rejected by a rate limit.", ["policy"], registry=REGISTRY
)
REJECTED = Counter(
    "markethall_http_rejected",
    "Requests refused because too many are at work, by the bound that was reached.",
    ["reason"],
    registry=REGISTRY,
)
CONTEXT_INFO = Gauge(
    "markethall_context_info",
    "Where each context runs and what it stores in.",
    ["context", "where", "storage"],
    registry=REGISTRY,
)
