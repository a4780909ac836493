"""Generates parts of the documents from the code: settings, metrics, diagrams and routes.

`python -m scripts.generate_docs` writes the documents; `--check` prints the outdated ones.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute, iter_route_contexts
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from markethall.contexts import context_names, topology
from markethall.inventory.imports.domain.csv_columns import CSV_HEADER, FAMILY_HEADER
from markethall.orders.domain import FULFILMENT_TRANSITIONS
from markethall.orders.domain import TRANSITIONS as ORDER_TRANSITIONS
from markethall.orders.returns.domain import RETURN_TRANSITIONS
from markethall.payments.domain.payment_transitions import TRANSITIONS as PAYMENT_TRANSITIONS
from markethall.settings import Settings
from markethall.shared.http.route_policies import RoutePolicy
from markethall.shared.kernel.scopes import SCOPES_BY_ROLE
from scripts.generate_network import OVERLAYS, picture
from scripts.monitoring.alerts import alert_rows
from scripts.monitoring.metric_table import metric_rows

ROOT = Path(__file__).parents[1]


# Settings


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    classes: list[type[BaseSettings]] = [
        Settings,
        *(each for manifest in topology().manifests for each in manifest.settings_classes),
    ]
    fields = {name: field for each in classes for name, field in each.model_fields.items()}
    for name, field in fields.items():
        rows.append(f"| `MARKETHALL_{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def columns() -> str:
    """Return the columns of the CSV format, in the order of an export."""
    return ", ".join(f"`{name}`" for name in CSV_HEADER)


def family_columns() -> str:
    """Return the columns of the CSV of families, in the order of an export."""
    return ", ".join(f"`{name}`" for name in FAMILY_HEADER)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, frozenset):
        return "all installed"
    if value in (None, "", (), {}, PydanticUndefined):
        return ""
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`"


# Diagrams


def monolith() -> str:
    """Return a diagram of the monolith, with the calls and events between the contexts."""
    lines = [
        "flowchart LR",
        "    client([shop, app, staff]) --> gateway",
        '    subgraph process["one process"]',
        "        gateway[gateway: identity, limits, access log]",
        *(f"        gateway --> {context}" for context in context_names()),
        *_edges("        "),
        "    end",
        *(f"    {context} --> {context}_db[({context} schema)]" for context in context_names()),
    ]
    return _mermaid(lines)


def relocation() -> str:
    """Return a diagram with inventory as a service: its calls use HTTP and its events Redis."""
    lines = [
        "flowchart LR",
        "    client([shop, app, staff]) --> ingress{{routes by path}}",
        '    subgraph monolith["monolith"]',
        *(f"        {context}" for context in context_names() if context != "inventory"),
        "    end",
        '    subgraph service["a service"]',
        "        inventory",
        "    end",
        *(f"    ingress --> {context}" for context in context_names()),
        *_edges("    "),
        "    monolith --> one_db[(database of the monolith)]",
        "    inventory --> own_db[(database of inventory)]",
    ]
    return _mermaid(lines)


def _edges(indent: str) -> Iterable[str]:
    for caller, needed in topology().dependencies.items():
        for callee in sorted(needed):
            yield f"{indent}{caller} -->|contract| {callee}"
    for publisher, subscriber in topology().event_pairs:
        names = [
            _class_name(subscription.event_type)
            for subscription in topology().subscriptions[subscriber]
            if subscription.publisher == publisher
        ]
        yield f'{indent}{publisher} -.->|"{"<br/>".join(dict.fromkeys(names))}"| {subscriber}'


def _class_name(event_type: str) -> str:
    """Return the class name of an event type: `OrderPaid` for `orders.order_paid`."""
    return event_type.partition(".")[2].title().replace("_", "")


def order_states() -> str:
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [
        f"    {row.status} --> {row.to}: {row.command}"
        for row in ORDER_TRANSITIONS
        if row.to is not row.status
    ]
    return _mermaid(lines)


def fulfilment_states() -> str:
    lines = ["stateDiagram-v2", "    [*] --> shipped"]
    lines += [f"    {status} --> {to}: {command}" for status, command, to in FULFILMENT_TRANSITIONS]
    return _mermaid(lines)


def return_states() -> str:
    lines = ["stateDiagram-v2", "    [*] --> requested"]
    lines += [
        f"    {status} --> {to}: {command}"
        for status, command, to in RETURN_TRANSITIONS
        if to is not status
    ]
    return _mermaid(lines)


def payment_states() -> str:
    lines = ["stateDiagram-v2", "    [*] --> created"]
    for status, commands in PAYMENT_TRANSITIONS.items():
        lines += [f"    {status} --> {to}: {command}" for command, to in commands.items()]
    return _mermaid(lines)


def network() -> str:
    return picture(OVERLAYS["split"])


def network_relocation() -> str:
    return picture(OVERLAYS["relocation"])


def _mermaid(lines: Iterable[str]) -> str:
    return "\n".join(["```mermaid", *lines, "```"])


# Routes


def routes_table() -> str:
    rows = ["| route | scope | summary |", "|---|---|---|"]
    for context in context_names():
        rows += [
            f"| `{', '.join(sorted(route.methods or ()))} {route.path}` | {_who(route)} "
            f"| {route.summary} |"
            for route in _routes(context)
        ]
    return "\n".join(rows)


def _routes(context: str) -> Iterator[APIRoute]:
    """Yield the routes of a context, including the routes of included routers."""
    for found in iter_route_contexts(topology().contexts[context].load_parts().router.routes):
        route = found.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            yield route


def _who(route: APIRoute) -> str:
    policy = next(_policies(route.dependant))
    if policy.scope is None:
        return "public"
    enough = " or ".join(f"`{scope}`" for scope in (policy.scope, *policy.alternative_scopes))
    return f"{enough} and `{policy.also_requires}`" if policy.also_requires else enough


def _policies(dependant: Any) -> Iterator[RoutePolicy]:
    if isinstance(dependant.call, RoutePolicy):
        yield dependant.call
    for child in dependant.dependencies:
        yield from _policies(child)


def roles_table() -> str:
    rows = ["| role | scopes |", "|---|---|"]
    for role, scopes in SCOPES_BY_ROLE.items():
        rows.append(f"| `{role}` | {', '.join(f'`{scope}`' for scope in sorted(scopes))} |")
    return "\n".join(rows)


def owners_table() -> str:
    rows = ["| context | first segments of its paths |", "|---|---|"]
    for context, owned in topology().paths_by_context.items():
        rows.append(f"| {context} | {', '.join(f'`/{segment}`' for segment in owned)} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "columns": columns,
    "family-columns": family_columns,
    "monolith": monolith,
    "relocation": relocation,
    "order-states": order_states,
    "fulfilment-states": fulfilment_states,
    "return-states": return_states,
    "payment-states": payment_states,
    "routes": routes_table,
    "roles": roles_table,
    "owners": owners_table,
    "metrics": metric_rows,
    "alerts": alert_rows,
    "network": network,
    "network-relocation": network_relocation,
}
DOCUMENTS = (
    "README.md",
    "docs/api.md",
    "docs/configuration.md",
    "docs/deployment.md",
    "docs/extracting-a-service.md",
    "docs/importing.md",
    "docs/metrics.md",
    "docs/monitoring.md",
    "docs/states.md",
)


def filled(text: str) -> str:
    """Return the document with its generated parts up to date."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}"

    return re.sub(
        r"(<!-- generated: ([a-z-]+) -->)\n.*?(<!-- end -->)", part, text, flags=re.DOTALL
    )


def main(*, check: bool) -> int:
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text()
        after = filled(before)
        if before != after:
            stale.append(name)
            if not check:
                path.write_text(after)
    print("\n".join(f"{'out of date' if check else 'written'}: {name}" for name in stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
