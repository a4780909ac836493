"""Rules of the comparison of our operations with the report of a provider."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.payments.contract.reconciliation import DifferenceReason, ReportKind
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.reconciliation import (
    ComparisonTotals,
    RecordedOperation,
    ReportLine,
    ReportPeriod,
)
from tests.payments.report_samples import (
    DAY,
    MOMENT,
    NOON,
    PERIOD,
    TOLERANCE,
    compare,
    differences,
    foreign_line,
    line_of,
    money,
    operation,
)

MIDNIGHT = PERIOD.end
IN_FILE = replace(PERIOD, is_file=True)


async def test_same_operations_and_lines_match() -> None:
    charge, refund = operation(), operation(OperationKind.REFUND, 500)

    comparisons = await compare([charge, refund], [line_of(refund), line_of(charge)])

    assert [one.reason for one in comparisons] == [None, None]


async def test_line_without_operation_is_missing_here() -> None:
    (found,) = await compare([], [foreign_line()])

    assert found.reason is DifferenceReason.MISSING_HERE
    view = found.to_view()
    assert (view.provider_reference, view.ours) == ("ref_foreign", None)
    assert view.theirs is not None
    assert view.theirs.amount == money(500)


async def test_operation_without_line_is_missing_there() -> None:
    charge = operation()

    (found,) = await compare([charge], [])

    view = found.to_view()
    assert view.reason is DifferenceReason.MISSING_THERE
    assert (view.operation_id, view.payment_id) == (charge.operation_id, charge.payment_id)
    assert view.theirs is None


async def test_failed_operation_with_a_line_is_missing_here() -> None:
    failed = operation(status=OperationStatus.FAILED)

    (found,) = await compare([failed], [line_of(failed)])

    assert found.reason is DifferenceReason.MISSING_HERE
    assert found.to_view().operation_id == failed.operation_id


async def test_open_operation_with_a_line_is_unsettled() -> None:
    unknown = operation(status=OperationStatus.UNKNOWN, settled_at=None, reference=None)

    comparisons = await compare([unknown], [line_of(unknown)])

    assert differences(comparisons) == ["unsettled"]


async def test_second_line_of_an_operation_is_a_duplicate() -> None:
    charge = operation()

    comparisons = await compare([charge], [line_of(charge)] * 3)

    assert [one.reason for one in comparisons] == ["duplicate", "duplicate", None]


async def test_second_line_without_operation_is_a_duplicate() -> None:
    comparisons = await compare([], [foreign_line(), foreign_line()])

    assert differences(comparisons) == ["duplicate", "missing_here"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": money(1998)}, "amount_differs"),
        ({"amount": money(1999, "USD")}, "currency_differs"),
        ({"kind": ReportKind.REFUND}, "kind_differs"),
        ({"fee": money(31)}, "fee_differs"),
        ({"fee": money(30, "USD")}, "fee_differs"),
        ({"fee": None}, None),
        ({"reference": "another"}, None),
        ({"operation_id": None}, None),
    ],
)
async def test_line_that_differs_is_found(
    changes: dict[str, object], reason: DifferenceReason | None
) -> None:
    charge = operation(fee=money(30))

    comparisons = await compare([charge], [line_of(charge, **changes)])

    assert [one.reason for one in comparisons] == [reason]


async def test_refund_with_the_reference_of_its_charge_does_not_replace_the_charge() -> None:
    charge = operation()
    refund_line = foreign_line(kind=ReportKind.REFUND, reference=charge.reference)

    comparisons = await compare([charge], [refund_line, line_of(charge, operation_id=None)])

    assert differences(comparisons) == ["missing_here"]
    assert sum(one.reason is None for one in comparisons) == 1


async def test_reversal_reduces_the_payment() -> None:
    capture = operation(OperationKind.CAPTURE, 1500)
    payment = line_of(capture, amount=money(2000))
    reversal = line_of(capture, kind=ReportKind.REVERSAL, amount=money(500))

    assert differences(await compare([capture], [reversal, payment])) == []
    assert differences(await compare([capture], [payment])) == ["amount_differs"]
    assert differences(await compare([capture], [reversal])) == ["kind_differs"]


async def test_captures_with_one_reference_are_distinguished_by_their_ids() -> None:
    captures = [operation(OperationKind.CAPTURE, 100, reference="auth") for _ in range(3)]

    comparisons = await compare(captures, map(line_of, captures))

    assert differences(comparisons) == []


# The edges of the day


async def test_operation_of_the_last_moment_matches_a_line_of_the_next_day() -> None:
    charge = operation(settled_at=MIDNIGHT - MOMENT)
    line = line_of(charge, occurred_at=MIDNIGHT)
    next_day = ReportPeriod(MIDNIGHT, MIDNIGHT + timedelta(days=1), TOLERANCE)

    assert [one.reason for one in await compare([charge], [line])] == [None]
    assert await compare([charge], [line], next_day) == []


async def test_line_of_the_last_moment_counts_on_the_day_of_its_operation() -> None:
    charge = operation(settled_at=MIDNIGHT)
    line = line_of(charge, occurred_at=MIDNIGHT - MOMENT)
    next_day = ReportPeriod(MIDNIGHT, MIDNIGHT + timedelta(days=1), TOLERANCE)

    assert await compare([charge], [line]) == []
    assert [one.reason for one in await compare([charge], [line], next_day)] == [None]


async def test_line_that_comes_after_the_tolerance_counts_on_its_own_day() -> None:
    charge = operation(settled_at=MIDNIGHT - MOMENT)
    line = line_of(charge, occurred_at=MIDNIGHT + TOLERANCE)
    next_day = ReportPeriod(MIDNIGHT, MIDNIGHT + timedelta(days=1), TOLERANCE)

    # the report of the day of the operation lacks the line
    assert differences(await compare([charge], [])) == ["missing_there"]
    assert [one.reason for one in await compare([charge], [line], next_day)] == [None]


async def test_line_outside_of_the_period_without_operation_does_not_count() -> None:
    before, after = foreign_line(occurred_at=DAY - MOMENT), foreign_line(occurred_at=MIDNIGHT)

    assert await compare([], [before, after]) == []


@pytest.mark.parametrize(
    ("settled_at", "is_at_edge"),
    [(DAY, True), (NOON, False), (MIDNIGHT - MOMENT, True), (MIDNIGHT - TOLERANCE - MOMENT, False)],
)
async def test_operation_at_the_edge_of_a_file_is_no_difference(
    settled_at: object, is_at_edge: bool
) -> None:
    charge = operation(settled_at=settled_at)

    (in_file,) = await compare([charge], [], IN_FILE)
    (in_report,) = await compare([charge], [])

    assert in_file.is_at_edge is is_at_edge
    assert in_report.reason is DifferenceReason.MISSING_THERE


async def test_sums_are_payments_minus_refunds_by_currency() -> None:
    charge, refund = operation(fee=money(30)), operation(OperationKind.REFUND, 500)
    yen = replace(operation(), amount=money(100, "JPY"))
    totals = ComparisonTotals()

    lines = [line_of(charge), line_of(charge), line_of(refund), foreign_line()]
    for comparison in await compare([charge, refund, yen], lines):
        totals.add(comparison)

    euro, yen_sums = totals.sums()
    assert (euro.ours, euro.theirs) == (money(1499), money(1999 + 1999 - 500 + 500))
    assert (euro.difference, euro.fees) == (money(-2499), money(60))
    assert (yen_sums.ours, yen_sums.theirs) == (money(100, "JPY"), money(0, "JPY"))
    assert totals.differences == {"duplicate": 1, "missing_here": 1, "missing_there": 1}


# A random report, mutated

MUTATIONS: Mapping[str, Callable[[ReportLine], list[ReportLine]]] = {
    "match": lambda line: [line],
    "missing_there": lambda _: [],
    "duplicate": lambda line: [line, line],
    "amount_differs": lambda line: [replace(line, amount=money(line.amount.amount + 1))],
    "currency_differs": lambda line: [replace(line, amount=money(line.amount.amount, "USD"))],
    "kind_differs": lambda line: [replace(line, kind=other_kind(line))],
    "fee_differs": lambda line: [replace(line, fee=money(31))],
    "missing_here": lambda line: [line, replace(line, reference="x", operation_id=None)],
}


def other_kind(line: ReportLine) -> ReportKind:
    return ReportKind.REFUND if line.kind is ReportKind.PAYMENT else ReportKind.PAYMENT


@st.composite
def mutated_reports(
    draw: st.DrawFn,
) -> tuple[list[RecordedOperation], list[ReportLine], Counter[str]]:
    planted = draw(st.lists(st.sampled_from(sorted(MUTATIONS)), max_size=30))
    operations, lines = [], []
    for number, mutation in enumerate(planted):
        one = operation(
            draw(st.sampled_from([OperationKind.CHARGE, OperationKind.REFUND])),
            draw(st.integers(1, 5)),
            settled_at=DAY + timedelta(minutes=draw(st.integers(0, 24 * 60 - 1))),
            fee=money(30),
        )
        has_id = draw(st.booleans())
        line = line_of(one) if has_id else line_of(one, operation_id=None)
        mutated = MUTATIONS[mutation](line)
        if mutation == "missing_here":
            mutated[1] = replace(mutated[1], reference=f"foreign_{number}")
        operations.append(one)
        lines += mutated
    return operations, draw(st.permutations(lines)), Counter(planted)


@given(mutated_reports())
async def test_exactly_the_planted_differences_are_found(
    report: tuple[list[RecordedOperation], list[ReportLine], Counter[str]],
) -> None:
    operations, lines, planted = report

    comparisons = await compare(operations, lines)

    found = Counter(str(one.reason) for one in comparisons if one.reason)
    assert found == {name: count for name, count in planted.items() if name != "match"}
    matched = planted["match"] + planted["duplicate"] + planted["missing_here"]
    assert sum(one.reason is None for one in comparisons) == matched
