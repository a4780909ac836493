"""The use cases of carts."""

from markethall.orders.carts.service.api import CartService as CartService
from markethall.orders.carts.service.editor import CartEditor as CartEditor
from markethall.orders.carts.service.editor import CartPolicy as CartPolicy
from markethall.orders.carts.service.jobs import ExpiredCartsJob as ExpiredCartsJob
from markethall.orders.carts.service.merges import CartMergeService as CartMergeService
from markethall.orders.carts.service.previews import CartPreviews as CartPreviews
