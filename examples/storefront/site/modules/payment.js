// The payment of an order.
import { read } from "./api.js";
import { byId, element, webUrl } from "./dom.js";
import { clearMessage, showError, showErrorText } from "./messages.js";
import { formatMoney } from "./money.js";
import { orderShop } from "./order-client.js";
import { idempotencyKey, unwrap } from "../markethall-client.js";

const FAILURES = {
  insufficient_funds: "The payment was declined: there is not enough money.",
  expired_card: "The payment was declined: the card has expired.",
};
const message = byId("payment-message");
const form = byId("pay");

/** Show the payment methods of an order; the chosen one confirms its payment. */
export async function showPayment(order) {
  try {
    const { amount: total, currency } = order.total;
    const methods = await read("/payment-methods", { query: { currency, total } });
    draw(order, methods.items);
  } catch (error) {
    showError(error, message);
  }
}

function draw(order, methods) {
  const choices = methods.map(({ method, name }, index) => element("label", { class: "choice" },
    element("input", { type: "radio", name: "method", value: method, checked: index === 0 }), ` ${name}`));
  form.replaceChildren(
    element("fieldset", {}, element("legend", { class: "visually-hidden" }, "Payment method"), ...choices),
    element("button", { type: "submit", class: "primary wide" }, `Pay ${formatMoney(order.total)}`),
  );
  form.onsubmit = (event) => pay(event, order, methods);
}

async function pay(event, order, methods) {
  event.preventDefault();
  const method = methods.find((one) => one.method === form.elements.method.value);
  const button = form.querySelector("button");
  button.disabled = true;
  clearMessage(message);
  try {
    showOutcome(await confirm(order.payment.payment_id, method.method), method);
  } catch (error) {
    showError(error, message);
  } finally {
    button.disabled = false;
  }
}

// each click is an attempt with a key of its own; the client repeats lost requests with this key
function confirm(paymentId, method) {
  const params = { path: { payment_id: paymentId }, header: idempotencyKey() };
  return unwrap(orderShop.POST("/payments/{payment_id}/confirm", { params, body: { payment_method: method } }));
}

function showOutcome(payment, method) {
  if (payment.status === "failed") {
    const reason = FAILURES[payment.failure_code] ?? "The payment was declined.";
    showErrorText(`${reason} Choose another method.`, message);
    return;
  }
  const text = { captured: "The payment was accepted.", authorized: "The payment was authorized." }[payment.status];
  const note = element("p", { class: "notice", role: "status" }, text ?? "The payment is being processed.");
  message.replaceChildren(note, ...nextAction(payment.next_action, method));
}

function nextAction(action, method) {
  if (action?.type === "redirect") {
    const url = webUrl(action.url);
    return url === null ? [] : [element("p", {}, element("a", { href: url }, "Continue at the payment provider"))];
  }
  const instructions = action?.instructions ?? method.instructions;
  return instructions ? [element("p", { class: "address" }, instructions)] : [];
}
