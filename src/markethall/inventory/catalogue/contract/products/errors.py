from markethall.shared.kernel.errors import DomainError


class SkuTaken(DomainError):
    """Another product has this SKU. The comparison ignores letter case. Details: sku."""

    code = "inventory.sku_taken"
    status = 409
    title = "Another product has this SKU"
