"""The Prometheus metrics. docs/metrics.md and the dashboard are generated from them."""

from functools import lru_cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)
_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

REQUESTS = _counter(
    "markethall_http_requests",
    "Requests answered; route is a path template.",
    ["method", "route", "status"],
)
LATENCY = _histogram(
    "markethall_http_request_seconds",
    "Time from the head of the request to the end of the response.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
# cached, because the `labels` method of prometheus_client takes a lock
request_counter = lru_cache(maxsize=4096)(REQUESTS.labels)
latency_histogram = lru_cache(maxsize=1024)(LATENCY.labels)
IN_FLIGHT = _gauge("markethall_http_in_flight", "Requests in progress.")
STATEMENTS = _counter(
    "markethall_db_statements", "SQL statements sent, without `BEGIN` and `COMMIT`."
)
REDIS_AVAILABLE = _gauge(
    "markethall_redis_available",
    "1 while Redis answers a ping every five seconds; 0 if it does not, or none is configured.",
)
CACHE_LOOKUPS = _counter(
    "markethall_cache",
    "Cache lookups. outcome: `l1_hit` (this process), `l2` (Redis), `miss` (loaded), "
    "`unavailable` (loaded, because Redis did not answer), `stale` (this process, during a "
    "renewal or while the database is unavailable). Callers that share one load count once; a "
    "response that is reused whole is not a lookup.",
    ["cache", "outcome"],
)
RPC_CLIENT_CALLS = _counter(
    "markethall_rpc_client_calls",
    "Contract calls to another context, in process or over HTTP. outcome: `ok`, or the error code.",
    ["target", "method", "outcome"],
)
RPC_CLIENT_ATTEMPTS = _counter(
    "markethall_rpc_client_attempts",
    "HTTP requests to another context, including retries.",
    ["target", "method"],
)
RPC_CLIENT_CIRCUIT_OPEN = _gauge(
    "markethall_rpc_client_circuit_open",
    "1 while the circuit breaker to a context is open.",
    ["target"],
)
EVENTS_RELAYED = _counter(
    "markethall_events_relayed", "Events relayed from an outbox.", ["context"]
)
EVENTS_HANDLED = _counter(
    "markethall_events_handled",
    "Runs of event handlers. outcome: `done`, `retried`, `dead`.",
    ["handler", "outcome"],
)
STREAM_ENTRIES = _counter(
    "markethall_stream_entries",
    "Entries of a Redis stream. what: `added`, `consumed`, `trimmed`.",
    ["publisher", "what"],
)
STREAM_UNAVAILABLE = _gauge(
    "markethall_stream_unavailable",
    "1 while this process cannot publish to, or consume from, a publisher's stream.",
    ["publisher", "direction"],
)
STREAM_REPUBLISHED = _counter(
    "markethall_stream_republished",
    "Events published again, because the stream was not in the expected state.",
    ["publisher"],
)
LEADER = _gauge(
    "markethall_leader",
    "1 in the process that is the leader of a context's background work.",
    ["context"],
)
OUTBOX_UNPUBLISHED = _gauge(
    "markethall_outbox_unpublished",
    "Events that are committed, but not relayed; at most 10,000.",
    ["context"],
)
OUTBOX_LAG = _gauge(
    "markethall_outbox_lag_seconds",
    "Age of the oldest event of the outbox that is not relayed.",
    ["context"],
)
INBOX_WAITING = _gauge(
    "markethall_inbox_waiting", "Deliveries that are not processed; at most 10,000.", ["context"]
)
INBOX_LAG = _gauge(
    "markethall_inbox_lag_seconds",
    "Time since the oldest delivery that is not processed was received, without those that "
    "wait on purpose.",
    ["context"],
)
ORDERS = _counter(
    "markethall_orders",
    "Changes of orders. change: `placed`, `paid`, `cancelled`, `expired`, `completed`. An "
    "order that is paid after it has expired counts as both.",
    ["change"],
)
RESERVATIONS_EXPIRED = _counter(
    "markethall_reservations_expired",
    "Reservations whose stock was released, because they were not paid in time.",
)
PAYMENT_MOVEMENTS = _counter(
    "markethall_payment_movements",
    "Captures and refunds that have succeeded. kind: `capture`, `refund`.",
    ["kind", "currency"],
)
PAYMENT_AMOUNT = _counter(
    "markethall_payment_amount_minor_units",
    "Sums of the captures and refunds that have succeeded; the revenue is captures minus "
    "refunds. kind: `capture`, `refund`.",
    ["kind", "currency"],
)
PROVIDER_CONFLICTS = _counter(
    "markethall_provider_conflicts",
    "Answers of the payment provider that contradict a settled operation; staff must settle them.",
    ["kind"],
)
ORDER_CAPTURE_FAILURES = _counter(
    "markethall_order_capture_failures",
    "Shipments whose price could not be captured; staff must get the money.",
)
PROVIDER_CIRCUIT_OPEN = _gauge(
    "markethall_provider_circuit_open",
    "1 while the circuit breaker to a payment provider is open.",
    ["provider"],
)
PROVIDER_WEBHOOKS = _counter(
    "markethall_provider_webhooks",
    "Webhook events of the payment provider. result: `applied`, `ignored`, `superseded`, "
    "`refunded`, `dead` (for staff).",
    ["provider", "result"],
)
RECONCILIATION_DIFFERENCES = _gauge(
    "markethall_reconciliation_differences",
    "Differences between our operations and the provider's report of the last compared day, "
    "in the process that has compared it.",
    ["provider", "reason"],
)
DISPUTE_CHANGES = _counter(
    "markethall_payment_dispute_changes",
    "Changes of the disputes of payments, by the status after the change.",
    ["provider", "status"],
)
RATE_LIMITED = _counter("markethall_rate_limited", "Requests refused by a rate limit.", ["policy"])
REJECTED = _counter(
    "markethall_http_rejected",
    "Requests refused because too many run at the same time. reason: `requests`, `reads`, "
    "`searches`, `facets`, `long` (the limit of the process), `client` (the limit of one client).",
    ["reason"],
)
CONTEXT_INFO = _gauge(
    "markethall_context_info",
    "1; shows where a context runs and what it stores in.",
    ["context", "where", "storage"],
)
