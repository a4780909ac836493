// Cancels an order that is not shipped.
import { hasCode } from "./api.js";
import { byId } from "./dom.js";
import { clearMessage, showError, showErrorText } from "./messages.js";
import { orderShop } from "./order-client.js";
import { idempotencyKey, unwrap } from "../markethall-client.js";

const form = byId("cancel");

/** Show the form while the order can be cancelled. `changed()` is called after a cancellation. */
export function showCancellation(order, changed) {
  const isOpen = ["pending", "processing"].includes(order.status);
  byId("cancellation").hidden = !isOpen || order.lines.some(({ fulfilled, failed }) => fulfilled + failed > 0);
  form.onsubmit = (event) => cancel(event, order.order_id, changed);
}

async function cancel(event, orderId, changed) {
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.disabled) return;
  button.disabled = true;
  clearMessage(byId("cancel-message"));
  try {
    const params = { path: { order_id: orderId }, header: idempotencyKey() };
    await unwrap(orderShop.POST("/orders/{order_id}/cancel", { params, body: { reason: byId("reason").value } }));
    await changed();
    byId("main").focus();
  } catch (error) {
    if (hasCode(error, "orders.invalid_transition")) showErrorText("This order cannot be cancelled any more.", byId("cancel-message"));
    else showError(error, byId("cancel-message"));
  } finally {
    button.disabled = false;
  }
}
