"""Test that the generated parts and links of the documents are current."""

import re
from pathlib import Path

from markethall.payments.contract import PaymentStatus
from markethall.payments.domain.payment_transitions import TRANSITIONS, PaymentCommand
from scripts.generate_docs import DOCUMENTS, PARTS, ROOT, filled

# the commands of requests, webhooks, reconciliation and expiry, which the state diagram must show
PICTURED_COMMANDS = {
    "confirm",
    "authorize",
    "capture",
    "void",
    "fail",
    "require_action",
    "capture_late",
    "mark_unknown",
    "expire",
}


def test_generated_parts_are_current() -> None:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        assert filled(text) == text, f"{name}: run make docs"


def test_every_generated_part_is_used() -> None:
    texts = "".join((ROOT / name).read_text() for name in DOCUMENTS)

    assert [part for part in PARTS if f"<!-- generated: {part} -->" not in texts] == []


def test_every_log_event_is_documented() -> None:
    call = re.compile(
        r"\b(?:log|logger|write)(?:\.(?:info|warning|error|exception))?\(\s*\"([a-z_]+\.[a-z_]+)\""
    )
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    table = (ROOT / "docs/logs.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE))

    assert set(call.findall(sources)) == documented


def test_document_links_resolve() -> None:
    documents = [*Path(ROOT).glob("*.md"), *Path(ROOT / "docs").rglob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_life_of_a_payment_follows_the_transition_table() -> None:
    text = (ROOT / "docs/states.md").read_text()
    life = text.partition("### Life of a payment")[2].partition("```mermaid")[2]

    steps = re.findall(r"(\w+): (\w+) → (\w+)", life)

    assert {command for command, _, _ in steps} >= PICTURED_COMMANDS
    for command, status, to in steps:
        row = TRANSITIONS[PaymentStatus(status)]
        assert row[PaymentCommand(command)] == to, f"{command}: {status} → {to}"
