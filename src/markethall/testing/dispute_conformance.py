from markethall.payments.ports import Capability
from markethall.testing.gateway_checks import charge_once, expect
from markethall.testing.gateway_testbed import GatewayTestbed


class DisputeConformance:
    async def test_dispute_names_its_operation(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.DISPUTES):
            return
        charge, _ = await charge_once(testbed)
        await charge_once(testbed)
        reference = testbed.open_dispute(charge.operation_id)

        found = await testbed.gateway.lookup_dispute(reference)

        if found is None:
            raise AssertionError("a dispute is not found")
        dispute = found.dispute
        expect(found.operation_id == charge.operation_id, "a dispute names another operation")
        expect(dispute.amount == charge.amount, f"a dispute has the amount {dispute.amount}")
        expect(dispute.provider_reference == reference, "a dispute has another id")
        expect(bool(dispute.status and dispute.reason), "a dispute has no status or no reason")

    async def test_unknown_dispute_is_none(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.DISPUTES):
            return
        found = await testbed.gateway.lookup_dispute("unknown")

        expect(found is None, f"lookup of an unknown dispute returned {found}")
