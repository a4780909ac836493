"""Objects that are wrong in themselves, or miss each other."""

from k8s.mistakes.kind import Mistake

MISTAKES = [
    # schemas
    Mistake(
        "unknown API version",
        lambda m: m.get("HorizontalPodAutoscaler", "markethall").update(
            apiVersion="autoscaling/v2beta2"
        ),
        "has no autoscaling/v2beta2 HorizontalPodAutoscaler",
    ),
    Mistake(
        "unknown field",
        lambda m: m.spec("Deployment").update(replica=3),
        "Deployment/markethall: Kubernetes 1.34 schema: spec",
    ),
    Mistake(
        "wrong type",
        lambda m: m.spec("Deployment").update(replicas="3"),
        "Deployment/markethall: Kubernetes 1.37 schema: spec",
    ),
    # namespaces, kinds and names
    Mistake(
        "a kind the check does not know",
        lambda m: m.get("Job", "markethall-migrate").update(
            kind="CronJob",
            spec={
                "schedule": "@daily",
                "jobTemplate": {"spec": m.spec("Job", "markethall-migrate")},
            },
        ),
        "CronJob/markethall-migrate: pods of this kind are not checked",
    ),
    Mistake(
        "namespace not restricted",
        lambda m: m.get("Namespace", "markethall")["metadata"]["labels"].pop(
            "pod-security.kubernetes.io/enforce"
        ),
        "Namespace/markethall: does not enforce",
    ),
    Mistake(
        "other namespace",
        lambda m: m.get("Service", "markethall-users")["metadata"].update(namespace="elsewhere"),
        "Service/markethall-users: its namespace is not in the rendering",
    ),
    Mistake(
        "same name twice",
        lambda m: m.documents.append(m.get("Service", "markethall-users")),
        "Service/markethall-users: 2 objects have this name",
    ),
    # selectors
    Mistake(
        "deployment misses its pods",
        lambda m: m.spec("Deployment")["selector"]["matchLabels"].update(task="other"),
        "Deployment/markethall: selector does not match its own pods",
    ),
    Mistake(
        "topology spread misses its pods",
        lambda m: m.pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(
            task="other"
        ),
        "topology spread does not match its own pods",
    ),
    Mistake(
        "no topology spread",
        lambda m: m.pod().pop("topologySpreadConstraints"),
        "no topology spread",
    ),
    Mistake(
        "service selects nothing",
        lambda m: m.spec("Service", "markethall-users")["selector"].update(task="other"),
        "Service/markethall-users: selector matches no pod",
    ),
    Mistake(
        "service selects the migrating pods too",
        lambda m: m.spec("Service", "markethall-users")["selector"].pop("task"),
        "selector matches Deployment/markethall and Job/markethall-migrate, not one Deployment",
    ),
    Mistake(
        "service selects another context too",
        lambda m: m.spec("Service", "markethall-users")["selector"].pop(
            "app.kubernetes.io/component"
        ),
        "Service/markethall-users: selector matches",
        "apart",
    ),
    Mistake(
        "budget selects nothing",
        lambda m: m.spec("PodDisruptionBudget")["selector"]["matchLabels"].update(task="other"),
        "PodDisruptionBudget/markethall: selector matches no pod",
    ),
    Mistake(
        "policy selects nothing",
        lambda m: m.spec("NetworkPolicy", "front-to-serve")["podSelector"]["matchLabels"].update(
            task="other"
        ),
        "NetworkPolicy/front-to-serve: selector matches no pod",
    ),
    # targets
    Mistake(
        "service port without container port",
        lambda m: m.spec("Service", "markethall-users")["ports"][0].update(targetPort="web"),
        "target port web is no port of markethall",
    ),
    Mistake(
        "scaler of nothing",
        lambda m: m.spec("HorizontalPodAutoscaler")["scaleTargetRef"].update(name="hall"),
        "HorizontalPodAutoscaler/markethall: target hall does not exist",
    ),
    Mistake(
        "scaler upside down",
        lambda m: m.spec("HorizontalPodAutoscaler").update(minReplicas=20),
        "more pods at least than at most",
    ),
    Mistake(
        "no scaler",
        lambda m: m.drop("HorizontalPodAutoscaler", "markethall-orders"),
        "Deployment/markethall-orders: has 0 scaler",
        "apart",
    ),
    Mistake(
        "no budget",
        lambda m: m.drop("PodDisruptionBudget", "markethall-orders"),
        "Deployment/markethall-orders: has 0 budget",
        "apart",
    ),
    Mistake(
        "no service",
        lambda m: m.drop("Service", "markethall-orders"),
        "Deployment/markethall: has 3 Service, not 4",
    ),
    Mistake(
        "a service too many",
        lambda m: m.documents.append(
            m.get("Service", "markethall-orders")
            | {"metadata": {"name": "orders", "namespace": "markethall"}}
        ),
        "Deployment/markethall-orders: has 2 Service, not 1",
        "apart",
    ),
    Mistake(
        "nobody migrates",
        lambda m: m.drop("Job", "markethall-migrate-users"),
        "Deployment/markethall-users: has 0 migrate Job",
        "apart",
    ),
    Mistake(
        "migrates another database",
        lambda m: m.variable("MARKETHALL_DATABASE_URL", "markethall-users").update(
            name="database-orders"
        ),
        "Deployment/markethall-users: has 0 migrate Job",
        "apart",
    ),
    Mistake(
        "budget blocks every drain",
        lambda m: (
            m.spec("PodDisruptionBudget").pop("maxUnavailable"),
            m.spec("PodDisruptionBudget").update(minAvailable=2),
        ),
        "PodDisruptionBudget/markethall: would block every drain",
    ),
    Mistake(
        "budget blocks by percent",
        lambda m: (
            m.spec("PodDisruptionBudget").pop("maxUnavailable"),
            m.spec("PodDisruptionBudget").update(minAvailable="51%"),
        ),
        "PodDisruptionBudget/markethall: would block every drain",
    ),
    Mistake(
        "budget with two minds",
        lambda m: m.spec("PodDisruptionBudget").update(minAvailable=1),
        "give exactly one of minAvailable and maxUnavailable",
    ),
]
