"""References to nothing, and secrets in the wrong hands."""

from k8s.mistakes.kind import Mistake

MISTAKES = [
    # references
    Mistake(
        "no service account",
        lambda m: m.drop("ServiceAccount", "markethall"),
        "service account markethall does not exist",
    ),
    Mistake(
        "config map without its hash",
        lambda m: m.container()["envFrom"][0]["configMapRef"].update(name="markethall-settings"),
        "ConfigMap markethall-settings does not exist",
    ),
    Mistake(
        "unknown secret",
        lambda m: m.variable("MARKETHALL_REDIS_URL").update(name="valkey"),
        "Secret valkey does not exist",
    ),
    Mistake(
        "unknown key of a secret",
        lambda m: m.variable("MARKETHALL_REDIS_URL").update(key="address"),
        "Secret redis has no key address",
    ),
    Mistake("no such volume", lambda m: m.pod().pop("volumes"), "volume tmp does not exist"),
    Mistake(
        "unknown certificate",
        lambda m: m.spec("Ingress")["tls"][0].update(secretName="certificate"),
        "Ingress/markethall: Secret certificate does not exist",
    ),
    # secrets
    Mistake(
        "secret not given",
        lambda m: m.container("markethall-migrate", "Job").update(env=[]),
        "Job/markethall-migrate: MARKETHALL_SECRET_KEY is not given",
    ),
    Mistake(
        "needed secret optional",
        lambda m: m.variable("MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY").update(optional=True),
        "Deployment/markethall: MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY is not given",
    ),
    Mistake(
        "orders may sign tokens",
        lambda m: m.container("markethall-orders").update(
            env=m.container("markethall-users")["env"]
        ),
        "Deployment/markethall-orders: is given MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY, which it does not need",
        "apart",
    ),
    Mistake(
        "orders cannot sign its calls",
        lambda m: m.variable("MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY", "markethall-orders").update(
            optional=True
        ),
        "Deployment/markethall-orders: MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY is not given",
        "apart",
    ),
    Mistake(
        "the hall cannot sign its calls",
        lambda m: m.container().update(
            env=[
                each
                for each in m.container()["env"]
                if each["name"] != "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY"
            ]
        ),
        "Deployment/markethall: MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY is not given",
        "moving",
    ),
    Mistake(
        "a leaf may pass for orders",
        lambda m: m.give(
            "markethall-payments",
            "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY",
            "application/service-token-private-key",
        ),
        "Deployment/markethall-payments: is given MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY, which it does not need",
        "apart",
    ),
    Mistake(
        "a key for calls that nobody makes",
        lambda m: m.give(
            "markethall",
            "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY",
            "application/service-token-private-key",
        ),
        "Deployment/markethall: is given MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY, which it does not need",
    ),
    Mistake(
        "a key under another name",
        lambda m: m.give(
            "markethall-inventory", "MARKETHALL_SPARE", "application/access-token-private-key"
        ),
        "Deployment/markethall-inventory: is given MARKETHALL_SPARE, which it does not need",
        "moving",
    ),
    Mistake(
        "the admin's password at a leaf",
        lambda m: m.give("markethall-inventory", "MARKETHALL_ADMIN_PASSWORD", "admin/password"),
        "Deployment/markethall-inventory: is given MARKETHALL_ADMIN_PASSWORD, which it does not",
        "apart",
    ),
    Mistake(
        "one key for people and services",
        lambda m: m.variable("MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY").update(
            key="access-token-private-key"
        ),
        "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY comes from application/access-token-private-key, not from application/service-token-private-k",
        "moving",
    ),
    Mistake(
        "a stall with the database of the hall",
        lambda m: m.variable("MARKETHALL_DATABASE_URL", "markethall-inventory").update(
            name="database"
        ),
        "MARKETHALL_DATABASE_URL comes from database/url, not from database-inventory/url",
        "moving",
    ),
    Mistake(
        "a secret written down",
        lambda m: m.container()["env"].append({"name": "MARKETHALL_REDIS_URL", "value": "redis:"}),
        "Deployment/markethall: MARKETHALL_REDIS_URL is written in the manifest",
    ),
    Mistake(
        "a secret among the settings",
        lambda m: m.settings("markethall-settings").update(
            MARKETHALL_REDIS_URL="redis://:all-may-read-it@redis"
        ),
        "Job/markethall-migrate-orders: MARKETHALL_REDIS_URL is written in the manifest",
        "apart",
    ),
    Mistake(
        "all secrets in the environment",
        lambda m: m.container("markethall-payments")["envFrom"].append(
            {"secretRef": {"name": "application"}}
        ),
        "Deployment/markethall-payments: reads all of Secret application",
        "apart",
    ),
    Mistake(
        "all secrets in a folder",
        lambda m: m.pod("markethall-users")["volumes"].append(
            {"name": "keys", "secret": {"secretName": "application"}}
        ),
        "Deployment/markethall-users: reads all of Secret application",
        "apart",
    ),
    Mistake(
        "all secrets in a folder, among others",
        lambda m: m.pod("markethall-users")["volumes"].append(
            {"name": "keys", "projected": {"sources": [{"secret": {"name": "application"}}]}}
        ),
        "Deployment/markethall-users: reads all of Secret application",
        "apart",
    ),
    Mistake(
        "two contexts in one database",
        lambda m: m.variable("MARKETHALL_DATABASE_URL", "markethall-orders").update(
            name="database-users"
        ),
        "Secret database-users: 2 Deployments share one database",
        "apart",
    ),
]
