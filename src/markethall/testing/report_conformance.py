from datetime import timedelta
from typing import Final

from markethall.payments.ports import Capability, OperationKind, ReportKind, Succeeded
from markethall.testing.gateway_checks import (
    REPORT_END,
    REPORT_START,
    authorize_once,
    charge_once,
    expect,
    expect_reported,
    lines_of,
    report_lines,
)
from markethall.testing.gateway_testbed import AMOUNT, GatewayTestbed

_LONG_AGO: Final = timedelta(hours=1)


class ReportConformance:
    async def test_report_lists_what_has_moved_money(self, testbed: GatewayTestbed) -> None:
        """Charges and refunds are listed once, with their amounts; a decline is not listed."""
        if not testbed.can(Capability.REPORT):
            return
        charge, outcome = await charge_once(testbed)
        declined = testbed.charge_request(method=testbed.declined_method)
        decline = await testbed.gateway.charge(declined)

        await expect_reported(testbed, charge, outcome, ReportKind.PAYMENT)
        expect(not await lines_of(testbed, declined, decline), "the report has a declined charge")
        for amount in (300, 200) if testbed.can(Capability.PARTIAL_REFUND) else ():
            refund = testbed.follow_up(OperationKind.REFUND, charge, amount)
            refunded = await testbed.gateway.refund(refund)
            await expect_reported(testbed, refund, refunded, ReportKind.REFUND)
        await expect_reported(testbed, charge, outcome, ReportKind.PAYMENT)

    async def test_report_lists_captures(self, testbed: GatewayTestbed) -> None:
        """Each capture is listed with its amount; an authorization is not listed."""
        if not testbed.can(Capability.REPORT, Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        authorized = Succeeded(authorization.reference or "")
        lines = await lines_of(testbed, authorization, authorized)
        expect(not lines, "the report has an authorization that is not captured")

        amount = 600 if testbed.can(Capability.PARTIAL_CAPTURE) else AMOUNT
        capture = testbed.follow_up(OperationKind.CAPTURE, authorization, amount)
        outcome = await testbed.gateway.capture(capture)

        await expect_reported(testbed, capture, outcome, ReportKind.PAYMENT)

    async def test_report_has_only_its_period(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.REPORT):
            return
        await charge_once(testbed)

        (line, *_) = await report_lines(testbed)
        before = await report_lines(testbed, REPORT_START, line.occurred_at)
        after = await report_lines(testbed, line.occurred_at + _LONG_AGO, REPORT_END)

        expect(not before, "the report has a line at the end of its period, or later")
        expect(not after, "the report has a line before its period")
        expect(line.occurred_at.tzinfo is not None, "a line has a time without an offset")
