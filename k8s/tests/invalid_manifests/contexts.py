"""Contexts that nobody serves, finds or reaches, or that everybody does."""

from k8s.mistakes.kind import Mistake

MISTAKES = [
    # contexts
    Mistake(
        "a context nobody serves",
        lambda m: m.settings("markethall-contexts").update(
            MARKETHALL_CONTEXTS="users,inventory,orders"
        ),
        "context payments: served by 0 Deployments",
    ),
    Mistake(
        "a context that is none",
        lambda m: m.settings("markethall-contexts").update(
            MARKETHALL_CONTEXTS='["users", "stock"]'
        ),
        "context stock: served by 1 Deployments",
    ),
    Mistake(
        "a neighbour nobody told orders of",
        lambda m: m.settings("markethall-contexts-orders").pop("MARKETHALL_CONTEXT_URLS"),
        "Deployment/markethall-orders: remotes [], but it needs ['inventory', 'payments', 'users']",
        "apart",
    ),
    Mistake(
        "a leaf that cannot tell whose service tokens are good",
        lambda m: m.settings("markethall-contexts-inventory").update(
            MARKETHALL_CONTEXT_URLS='{"users":"http://markethall-users:8000"}'
        ),
        "Deployment/markethall-inventory: remotes ['users'], but it needs ['orders', 'users']",
        "moving",
    ),
    Mistake(
        "a leaf told of another leaf",
        lambda m: m.settings("markethall-contexts-users").update(
            MARKETHALL_CONTEXT_URLS='{"orders":"http://markethall-orders:8000",'
            '"payments":"http://markethall-payments:8000"}'
        ),
        "Deployment/markethall-users: remotes ['orders', 'payments'], but it needs ['orders']",
        "apart",
    ),
    Mistake(
        "a stall that has moved out and stayed",
        lambda m: m.settings("markethall-contexts").update(
            MARKETHALL_CONTEXTS="users,inventory,orders,payments"
        ),
        "context inventory: served by 2 Deployments",
        "moving",
    ),
    Mistake(
        "a neighbour at a Service that is not there",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_CONTEXT_URLS='{"users":"http://users:8000"}'
        ),
        "remote users at http://users:8000 is no Service of that context",
        "apart",
    ),
    Mistake(
        "a neighbour on the wrong port",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_CONTEXT_URLS='{"users":"http://markethall-users"}'
        ),
        "remote users at http://markethall-users is no Service of that context",
        "apart",
    ),
    Mistake(
        "a neighbour taken for another",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_CONTEXT_URLS='{"users":"http://markethall-orders:8000"}'
        ),
        "remote users at http://markethall-orders:8000 is no Service of that context",
        "apart",
    ),
    # ingress
    Mistake("path forgotten", lambda m: m.paths().pop(), "Ingress: /ledger is routed 0 times"),
    Mistake(
        "path twice", lambda m: m.paths().append(m.paths()[0]), "Ingress: /users is routed 2 times"
    ),
    Mistake(
        "internal path public",
        lambda m: m.paths().append({**m.paths()[0], "path": "/internal"}),
        "Ingress: /internal must not be public",
    ),
    Mistake(
        "one call between contexts public",
        lambda m: m.paths().append({**m.paths()[0], "path": "/internal/users/active"}),
        "Ingress: /internal/users/active must not be public",
        "apart",
    ),
    Mistake(
        "all paths of one stall public",
        lambda m: m.paths().append({**m.paths()[0], "path": "/"}),
        "Ingress: / must not be public",
        "apart",
    ),
    Mistake(
        "a path that the Ingress rewrites",
        lambda m: m.get("Ingress", "markethall")["metadata"].update(
            annotations={"nginx.ingress.kubernetes.io/rewrite-target": "/internal/$1"}
        ),
        "Ingress/markethall: nginx.ingress.kubernetes.io/rewrite-target may make any path public",
    ),
    Mistake(
        "a Service past the Ingress",
        lambda m: m.spec("Service", "markethall-inventory").update(type="LoadBalancer"),
        "Service/markethall-inventory: is open to the world, past the Ingress",
        "moving",
    ),
    Mistake(
        "path of a stall that has moved out",
        lambda m: next(path for path in m.paths() if path["path"] == "/products")["backend"][
            "service"
        ].update(name="markethall-orders"),
        "Ingress: /products goes to markethall-orders, which does not own it",
        "moving",
    ),
    Mistake(
        "path of another context",
        lambda m: m.paths()[0]["backend"]["service"].update(name="markethall-orders"),
        "Ingress: /users goes to markethall-orders, which does not own it",
        "apart",
    ),
    Mistake(
        "path to no Service",
        lambda m: m.paths()[0]["backend"]["service"].update(name="hall"),
        "Ingress: /users goes to Service hall, which does not exist",
    ),
    Mistake(
        "path to no port",
        lambda m: m.paths()[0]["backend"]["service"].update(port={"number": 80}),
        "Ingress: /users goes to port {'number': 80}, which Service markethall-users does not have",
    ),
    Mistake(
        "path matched exactly",
        lambda m: m.paths()[0].update(pathType="Exact"),
        "/users is Exact, not Prefix",
    ),
    Mistake(
        "everything else public",
        lambda m: m.spec("Ingress").update(defaultBackend=m.paths()[0]["backend"]),
        "a default backend makes every path public",
    ),
    Mistake("no TLS", lambda m: m.spec("Ingress").pop("tls"), "Ingress/markethall: no TLS"),
]
