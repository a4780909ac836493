"""The Prometheus metrics. docs/metrics.md and the dashboard are generated from them."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

REQUESTS = Counter(
    "markethall_http_requests",
    "Requests answered; route is a path template.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
LATENCY = Histogram(
    "markethall_http_request_seconds",
    "Time from the head of the request to the end of the response.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
# cached, because the `labels` method of prometheus_client takes a lock
request_counter = lru_cache(maxsize=4096)(REQUESTS.labels)
latency_histogram = lru_cache(maxsize=1024)(LATENCY.labels)
IN_FLIGHT = Gauge("markethall_http_in_flight", "Requests in progress.", registry=REGISTRY)
STATEMENTS = Counter(
    "markethall_db_statements",
    "SQL statements sent, without `BEGIN` and `COMMIT`.",
    registry=REGISTRY,
)
REDIS_AVAILABLE = Gauge(
    "markethall_redis_available",
    "1 while Redis answers a ping every five seconds; 0 if it does not, or none is configured.",
    registry=REGISTRY,
)
CACHE_LOOKUPS = Counter(
    "markethall_cache",
    "Cache lookups. outcome: `l1_hit` (this process), `l2` (Redis), `miss` (loaded), "
    "`unavailable` (loaded, because Redis did not answer), `stale` (this process, during a "
    "renewal or while the database is unavailable). Callers that share one load count once; a "
    "response that is reused whole is not a lookup.",
    ["cache", "outcome"],
    registry=REGISTRY,
)
RPC_CLIENT_CALLS = Counter(
    "markethall_rpc_client_calls",
    "Contract calls to another context, in process or over HTTP. outcome: `ok`, or the error code.",
    ["target", "method", "outcome"],
    registry=REGISTRY,
)
RPC_CLIENT_ATTEMPTS = Counter(
    "markethall_rpc_client_attempts",
    "HTTP requests to another context, including retries.",
    ["target", "method"],
    registry=REGISTRY,
)
RPC_CLIENT_CIRCUIT_OPEN = Gauge(
    "markethall_rpc_client_circuit_open",
    "1 while the circuit breaker to a context is open.",
    ["target"],
    registry=REGISTRY,
)
EVENTS_RELAYED = Counter(
    "markethall_events_relayed", "Events relayed from an outbox.", ["context"], registry=REGISTRY
)
EVENTS_HANDLED = Counter(
    "markethall_events_handled",
    "Runs of event handlers. outcome: `done`, `retried`, `dead`.",
    ["handler", "outcome"],
    registry=REGISTRY,
)
STREAM_ENTRIES = Counter(
    "markethall_stream_entries",
    "Entries of a Redis stream. what: `added`, `consumed`, `trimmed`.",
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
    "Events published again, because the stream was not in the expected state.",
    ["publisher"],
    registry=REGISTRY,
)
LEADER = Gauge(
    "markethall_leader",
    "1 in the process that is the leader of a context's background work.",
    ["context"],
    registry=REGISTRY,
)
OUTBOX_UNPUBLISHED = Gauge(
    "markethall_outbox_unpublished",
    "Events that are committed, but not relayed; at most 10,000.",
    ["context"],
    registry=REGISTRY,
)
OUTBOX_LAG = Gauge(
    "markethall_outbox_lag_seconds",
    "Age of the oldest event of the outbox that is not relayed.",
    ["context"],
    registry=REGISTRY,
)
INBOX_WAITING = Gauge(
    "markethall_inbox_waiting",
    "Deliveries that are not processed; at most 10,000.",
    ["context"],
    registry=REGISTRY,
)
INBOX_LAG = Gauge(
    "markethall_inbox_lag_seconds",
    "Time since the oldest delivery that is not processed was received, without those that "
    "wait on purpose.",
    ["context"],
    registry=REGISTRY,
)
ORDERS = Counter(
    "markethall_orders",
    "Changes of orders. change: `placed`, `paid`, `cancelled`, `expired`, `completed`. An "
    "order that is paid after it has expired counts as both.",
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
    "Captures and refunds that have succeeded. kind: `capture`, `refund`.",
    ["kind", "currency"],
    registry=REGISTRY,
)
PAYMENT_AMOUNT = Counter(
    "markethall_payment_amount_minor_units",
    "Sums of the captures and refunds that have succeeded; the revenue is captures minus "
    "refunds. kind: `capture`, `refund`.",
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
    "1 while the circuit breaker to a payment provider is open.",
    ["provider"],
    registry=REGISTRY,
)
PROVIDER_WEBHOOKS = Counter(
    "markethall_provider_webhooks",
    "Webhook events of the payment provider. result: `applied`, `ignored`, `superseded`, "
    "`refunded`, `dead` (for staff).",
    ["provider", "result"],
    registry=REGISTRY,
)
RECONCILIATION_DIFFERENCES = Gauge(
    "markethall_reconciliation_differences",
    "Differences between our operations and the provider's report of the last compared day, "
    "in the process that has compared it.",
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
    "markethall_rate_limited", "Requests refused by a rate limit.", ["policy"], registry=REGISTRY
)
REJECTED = Counter(
    "markethall_http_rejected",
    "Requests refused because too many run at the same time. reason: `requests`, `reads`, "
    "`searches`, `facets`, `long` (the limit of the process), `client` (the limit of one client).",
    ["reason"],
    registry=REGISTRY,
)
CONTEXT_INFO = Gauge(
    "markethall_context_info",
    "1; shows where a context runs and what it stores in.",
    ["context", "where", "storage"],
    registry=REGISTRY,
)
