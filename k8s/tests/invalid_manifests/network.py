"""Ways that are open, or closed, and should not be."""

from k8s.mistakes.kind import Mistake
from k8s.rendered import Manifests

MISTAKES = [
    # network
    Mistake(
        "no default deny",
        lambda m: m.drop("NetworkPolicy", "default-deny"),
        "NetworkPolicy: a stranger in our namespace -> hall/migrate TCP 8000 is open",
    ),
    Mistake(
        "everything open",
        Manifests.open_everything,
        "NetworkPolicy: the internet -> orders TCP 8000 is open",
        "apart",
    ),
    Mistake(
        "the leaves call each other",
        lambda m: (
            m.rule("inventory-to-neighbours", "egress").pop("to"),
            m.rule("payments-from-neighbours", "ingress").pop("from"),
        ),
        "NetworkPolicy: inventory -> payments TCP 8000 is open",
        "apart",
    ),
    Mistake(
        "users calls whoever reads its keys",
        lambda m: (
            m.rule("users-to-neighbours", "egress").pop("to"),
            m.rule("inventory-from-neighbours", "ingress").pop("from"),
        ),
        "NetworkPolicy: users -> inventory TCP 8000 is open",
        "apart",
    ),
    Mistake(
        "callee not told",
        lambda m: m.drop("NetworkPolicy", "inventory-from-neighbours"),
        "NetworkPolicy: orders -> inventory TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "caller not told",
        lambda m: m.drop("NetworkPolicy", "orders-to-neighbours"),
        "NetworkPolicy: orders -> payments TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "the keys of people out of reach",
        lambda m: m.drop("NetworkPolicy", "payments-to-neighbours"),
        "NetworkPolicy: payments -> users TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "the keys of services out of reach",
        lambda m: m.drop("NetworkPolicy", "orders-from-neighbours"),
        "NetworkPolicy: users -> orders TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "the hall's keys out of reach",
        lambda m: m.drop("NetworkPolicy", "hall-from-neighbours"),
        "NetworkPolicy: inventory -> hall TCP 8000 is closed",
        "moving",
    ),
    Mistake(
        "the hall not told of who moved out",
        lambda m: m.drop("NetworkPolicy", "hall-to-neighbours"),
        "NetworkPolicy: hall -> inventory TCP 8000 is closed",
        "moving",
    ),
    Mistake(
        "the migration is left out of DNS",
        lambda m: m.spec("NetworkPolicy", "all-to-dns")["podSelector"]["matchLabels"].update(
            task="serve"
        ),
        "NetworkPolicy: hall/migrate -> dns UDP 53 is closed",
    ),
    Mistake(
        "the migration reaches Redis",
        lambda m: m.spec("NetworkPolicy", "serve-to-redis")["podSelector"]["matchLabels"].pop(
            "task"
        ),
        "NetworkPolicy: hall/migrate -> redis TCP 6379 is open",
    ),
    Mistake(
        "all ports of Postgres",
        lambda m: m.rule("all-to-postgres", "egress").pop("ports"),
        "NetworkPolicy: hall -> postgres TCP 443 is open",
    ),
    Mistake(
        "a range of ports",
        lambda m: m.rule("all-to-postgres", "egress").update(
            ports=[{"port": 5432, "endPort": 6400}]
        ),
        "NetworkPolicy: hall -> postgres TCP 6379 is open",
    ),
    Mistake(
        "the whole namespace of the data",
        lambda m: m.rule("all-to-postgres", "egress")["to"][0].pop("podSelector"),
        "NetworkPolicy: hall -> redis TCP 5432 is open",
    ),
    Mistake(
        "the wrong named port",
        lambda m: m.rule("front-to-serve", "ingress").update(ports=[{"port": "metrics"}]),
        "NetworkPolicy: ingress controller -> hall TCP 8000 is closed",
    ),
    Mistake(
        "the internet by address",
        lambda m: m.rule("all-to-dns", "egress").update(
            to=[{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]
        ),
        "NetworkPolicy: hall -> the internet TCP 53 is open",
    ),
    Mistake(
        "strangers let in",
        lambda m: m.rule("front-to-serve", "ingress")["from"].append(
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "Exists"}
                    ]
                }
            }
        ),
        "NetworkPolicy: a stranger elsewhere -> hall TCP 8000 is open",
    ),
]
