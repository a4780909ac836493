// The view of an order: what was ordered, the payment, and the status, which updates by itself.
import { hasCode, read } from "./api.js";
import { showCartCount } from "./cart.js";
import { countryName } from "./countries.js";
import { byId, element } from "./dom.js";
import { clearMessage, showError } from "./messages.js";
import { formatMoney } from "./money.js";
import { showPayment } from "./payment.js";
import { watchStatus } from "./status.js";

const TEXTS = {
  pending: "We wait for your payment.",
  processing: "Paid. We prepare your order.",
  completed: "Your order has been delivered.",
  cancelled: "This order was cancelled.",
  expired: "This order was not paid in time and has expired.",
};
const STEPS = ["pending", "processing", "completed"];
const STEP_NAMES = { pending: "Ordered", processing: "Paid, in preparation", completed: "Delivered", cancelled: "Cancelled", expired: "Expired" };

void showCartCount();
await load();

async function load() {
  try {
    const path = { order_id: new URLSearchParams(location.search).get("id") || "-" };
    const order = await read("/orders/{order_id}", { path });
    clearMessage();
    draw(order);
    await watchStatus(path, (status) => showStatus(status, order));
  } catch (error) {
    if (hasCode(error, "orders.order_not_found") || hasCode(error, "request.invalid")) showNotFound();
    else showError(error);
  }
}

function showNotFound() {
  byId("message").replaceChildren(element("p", { class: "empty" }, "There is no such order, or it belongs to another buyer. ",
    element("a", { href: "index.html" }, "See all products")));
}

function draw(order) {
  document.title = `Order ${order.number} · Demo storefront`;
  byId("title").textContent = `Order ${order.number}`;
  const lines = order.lines.map(({ name, quantity, total }) => element("li", {},
    element("span", {}, `${quantity} × ${name}`), element("span", {}, formatMoney(total))));
  byId("lines").replaceChildren(
    element("ul", { class: "short-lines" }, ...lines),
    sums(order),
    element("h3", {}, "Shipping address"),
    element("p", { class: "address" }, addressText(order.shipping_address)),
    order.email === null ? null : element("p", { class: "hint" }, `Messages go to ${order.email}`),
  );
  byId("order").hidden = false;
}

function sums(order) {
  const optional = [["Discount", order.discount], ["Tax", order.tax]].filter(([, money]) => money.amount !== 0);
  const included = order.included_tax.amount === 0 ? [] : [["of it tax", order.included_tax]];
  const rows = [["Subtotal", order.subtotal], ["Shipping", order.shipping], ...optional, ["Total", order.total], ...included];
  return element("dl", { class: "sums" }, ...rows.map(([name, money]) =>
    element("div", { class: name === "Total" ? "grand-total" : null }, element("dt", {}, name), element("dd", {}, formatMoney(money)))));
}

// an address is a text or has fields
function addressText(address) {
  if (typeof address === "string") return address;
  const { recipient, line1, line2, postal_code, city, region, country } = address;
  const town = [postal_code, city].join(" ");
  return [recipient, line1, line2, town, region, countryName(country)].filter(Boolean).join("\n");
}

function showStatus(status, order) {
  byId("status").textContent = TEXTS[status.status] ?? status.status;
  byId("status").dataset.status = status.status;
  drawSteps(status.status);
  const isPending = status.status === "pending";
  if (isPending && byId("payment").hidden) showPayment(order);
  byId("payment").hidden = !isPending;
}

function drawSteps(status) {
  const steps = STEPS.includes(status) ? STEPS : ["pending", status];
  const reached = steps.indexOf(status);
  byId("steps").replaceChildren(...steps.map((step, index) =>
    element("li", { class: index <= reached ? "done" : null, "aria-current": index === reached ? "step" : null }, STEP_NAMES[step] ?? step)));
}
