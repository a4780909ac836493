"""Every mistake that the check promises to see, by the part of the check that sees it."""

from k8s.mistakes import contexts, network, objects, pods, secrets

MISTAKES = [
    *objects.MISTAKES,
    *secrets.MISTAKES,
    *contexts.MISTAKES,
    *pods.MISTAKES,
    *network.MISTAKES,
]
