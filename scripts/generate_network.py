"""Writes the network policies between processes, from the manifests of the contexts.

`python -m scripts.generate_network` writes; `--check` only says what is out of date.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from markethall.contexts import context_names, topology
from markethall.shared.composition.topology import Topology

ROOT: Final = Path(__file__).parents[1]

# process -> the contexts that it serves; a process is known by its component label
Halls = Mapping[str, frozenset[str]]
Relations = Mapping[str, frozenset[str]]

OVERLAYS: Final[Mapping[str, Halls]] = {
    "apart": {context: frozenset({context}) for context in context_names()},
    "moving": {
        "hall": frozenset(context_names()) - {"inventory"},
        "inventory": frozenset({"inventory"}),
    },
}

HEAD: Final = """\
# Written by `make docs` from the manifests of the contexts: change those, not this.
# A way is open only if the egress of one end and the ingress of the other say so: each stands
# here twice.
"""
POLICY: Final = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: markethall}}
spec:
  podSelector:
    matchLabels: {{task: serve, app.kubernetes.io/component: {me}}}
  policyTypes: [{kind}]
  {field}:
    - {peers}:
{others}
      ports:
        - {{protocol: TCP, port: http}}
"""
PEER: Final = """\
        # {why}
        - podSelector:
            matchLabels: {{task: serve, app.kubernetes.io/component: {other}}}"""


class Way(NamedTuple):
    """From one process to another, because a context there wants something of one here."""

    source: str
    target: str
    calls: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def why(self) -> str:
        return ", ".join((*self.calls, *self.keys))


def ways(halls: Halls, relations: Topology | None = None) -> list[Way]:
    """All there are. What two contexts of one process want of each other takes no way."""
    relations = relations or topology()
    every = [
        Way(
            source,
            target,
            tuple(_said("calls", halls[source], halls[target], relations.dependencies)),
            tuple(_said("reads the keys of", halls[source], halls[target], relations.jwks_sources)),
        )
        for source in halls
        for target in halls
        if source != target
    ]
    return [way for way in every if way.calls or way.keys]


def _said(
    verb: str, here: Iterable[str], there: Iterable[str], relations: Relations
) -> Iterator[str]:
    for one in sorted(here):
        for other in sorted(relations[one] & frozenset(there)):
            yield f"{one} {verb} {other}"


def network(halls: Halls, relations: Topology | None = None) -> str:
    """The policies as a file: for each process, whom it may reach and who may reach it."""
    every = ways(halls, relations)
    policies = [policy for hall in halls for policy in _policies(hall, every)]
    return HEAD + "---\n".join(policies)


def _policies(hall: str, every: Iterable[Way]) -> Iterator[str]:
    out = [(way.target, way.why) for way in every if way.source == hall]
    into = [(way.source, way.why) for way in every if way.target == hall]
    if out:
        yield _policy(f"{hall}-to-neighbours", hall, "Egress", out)
    if into:
        yield _policy(f"{hall}-from-neighbours", hall, "Ingress", into)


def _policy(name: str, hall: str, kind: str, others: Iterable[tuple[str, str]]) -> str:
    return POLICY.format(
        name=name,
        me=hall,
        kind=kind,
        field=kind.lower(),
        peers="to" if kind == "Egress" else "from",
        others="\n".join(PEER.format(other=other, why=why) for other, why in others),
    )


def picture(halls: Halls) -> str:
    """The same ways, drawn: a call is a line, the fetching of public keys alone is dotted."""
    lines = ["flowchart LR", "    ingress{{Ingress}}"]
    lines += [f"    ingress --> {hall}" for hall in halls]
    for way in ways(halls):
        arrow = "-->" if way.calls else "-.->"
        words = " and ".join(word for word, said in _words(way) if said)
        lines.append(f"    {way.source} {arrow}|{words}| {way.target}")
    return "\n".join(["```mermaid", *lines, "```"])


def _words(way: Way) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("calls", way.calls), ("keys", way.keys)


def main(*, check: bool) -> int:
    stale = []
    for overlay, halls in OVERLAYS.items():
        path = ROOT / "k8s" / overlay / "network.yaml"
        if not path.exists() or path.read_text() != network(halls):
            stale.append(path)
            if not check:
                path.write_text(network(halls))
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
