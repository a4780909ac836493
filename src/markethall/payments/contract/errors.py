"""The errors of payments."""

from markethall.shared.kernel.errors import DomainError


class PaymentNotFound(DomainError):
    """The payment does not exist or the caller may not see it. Details: payment_id."""

    code = "payments.not_found"
    status = 404
    title = "There is no such payment"


class InvalidPaymentTransition(DomainError):
    """The payment's status does not accept the command. Details: status, allowed (commands)."""

    code = "payments.invalid_transition"
    status = 409
    title = "The payment's status does not allow this"


class PaymentInProgress(DomainError):
    """The outcome of a charge, capture or void is not known yet. Details: retry_after (seconds)."""

    code = "payments.in_progress"
    status = 409
    title = "This payment is being processed"
    retryable = True


class CaptureExceedsAuthorized(DomainError):
    """The amount is more than can still be captured. Details: requested, capturable (Money)."""

    code = "payments.capture_exceeds_authorized"
    status = 409
    title = "A capture cannot exceed what was authorized"


class RefundExceedsCaptured(DomainError):
    """The amount is more than can still be refunded. Details: requested, refundable (Money)."""

    code = "payments.refund_exceeds_captured"
    status = 409
    title = "A refund cannot exceed what was captured"


class RefundNotFound(DomainError):
    """The payment has no refund with this id. Details: refund_id."""

    code = "payments.refund_not_found"
    status = 404
    title = "There is no such refund of this payment"


class UnknownPaymentMethod(DomainError):
    """No provider of this shop supports this payment method. Details: payment_method."""

    code = "payments.unknown_method"
    status = 422
    title = "This shop does not offer this payment method"


class SavedPaymentMethodNotFound(DomainError):
    """The caller has no such saved method. Details: saved_payment_method_id."""

    code = "payments.saved_method_not_found"
    status = 404
    title = "There is no such saved payment method"


class UnsupportedByProvider(DomainError):
    """The provider does not have the capability that is needed. Details: provider, capability."""

    code = "payments.unsupported_by_provider"
    status = 409
    title = "The provider of this payment cannot do this"


class UnknownProvider(DomainError):
    """No enabled provider with this name sends webhooks. Details: provider."""

    code = "payments.unknown_provider"
    status = 404
    title = "There is no such provider"


class WebhookSignatureInvalid(DomainError):
    """The signature is missing, forged or too old."""

    code = "payments.webhook_signature_invalid"
    status = 401
    title = "The webhook's signature is not valid"


class AmountExceedsDue(DomainError):
    """The amount exceeds the unpaid rest of the payment. Details: requested, due (both Money)."""

    code = "payments.amount_exceeds_due"
    status = 409
    title = "The amount is more than what is still to be paid"


class OrderHasPayment(DomainError):
    """The order has a payment with another id. Details: order_id."""

    code = "payments.order_has_payment"
    status = 409
    title = "The order has a payment already"


class OperationIdTaken(DomainError):
    """The refund id belongs to another operation. Details: operation_id."""

    code = "payments.operation_id_taken"
    status = 409
    title = "This id names another operation"


class ReconciliationNotFound(DomainError):
    """There is no comparison with this id. Details: reconciliation_id."""

    code = "payments.reconciliation_not_found"
    status = 404
    title = "There is no such reconciliation"


class UnknownReportProvider(DomainError):
    """No enabled provider has this name. Details: provider, known (the names of all)."""

    code = "payments.unknown_report_provider"
    status = 404
    title = "This shop has no provider with this name"


class ReportFileInvalid(DomainError):
    """The report cannot be read. Details: errors, a list of objects with line, column, message."""

    code = "payments.report_file_invalid"
    status = 422
    title = "The report cannot be read"
