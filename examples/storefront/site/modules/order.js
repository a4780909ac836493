// The view of an order: what was ordered, the payment, the shipments and all changes. It updates by itself.
import { hasCode, read } from "./api.js";
import { showCancellation } from "./cancellation.js";
import { showCartCount } from "./cart.js";
import { countryName } from "./countries.js";
import { byId, element } from "./dom.js";
import { clearMessage, showError } from "./messages.js";
import { formatMoney } from "./money.js";
import { watchOrder } from "./order-updates.js";
import { showPayment } from "./payment.js";
import { drawShipments, drawTimeline } from "./timeline.js";
import { totalsList } from "./totals.js";

const TEXTS = {
  pending: "We wait for your payment.",
  processing: "Paid. We prepare your order.",
  completed: "Your order has been delivered.",
  cancelled: "This order was cancelled.",
  expired: "This order was not paid in time and has expired.",
};
const SHIPPED_TEXTS = {
  partial: "A part of your order is on its way.",
  fulfilled: "Your order is on its way.",
  delivered: "Your shipments have arrived. The rest follows.",
};
const STEPS = ["Ordered", "Paid, in preparation", "On its way", "Delivered"];
const FULFILMENTS = { query: { limit: 100 } };

const path = { order_id: new URLSearchParams(location.search).get("id") || "-" };
let shown = null;

void showCartCount();
addEventListener("pageshow", (event) => event.persisted && location.reload());
await start();

async function start() {
  try {
    await refresh();
    clearMessage();
    await watchOrder(path, { shownVersion: () => shown.version, changed: refresh, showLost });
  } catch (error) {
    if (hasCode(error, "orders.not_found", "request.invalid")) showNotFound();
    else showError(error, byId("message"), element("button", { type: "button", click: () => location.reload() }, "Try again"));
  }
}

async function refresh() {
  const [order, timeline, fulfilments] = await Promise.all([
    read("/orders/{order_id}", { path }),
    read("/orders/{order_id}/timeline", { path }),
    read("/orders/{order_id}/fulfilments", { path, ...FULFILMENTS }),
  ]);
  draw(order);
  drawTimeline(timeline.items);
  drawShipments(fulfilments.items, order.lines);
  shown = order;
}

function showNotFound() {
  byId("message").replaceChildren(element("p", { class: "empty" }, "There is no such order, or it belongs to another buyer. ",
    element("a", { href: "index.html" }, "See all products")));
}

function showLost(isLost) {
  byId("connection").textContent = isLost ? "The shop cannot be reached. This page tries again." : "";
}

function draw(order) {
  document.title = `Order ${order.number} · Demo storefront`;
  byId("title").textContent = `Order ${order.number}`;
  const lines = order.lines.map(({ name, quantity, total }) => element("li", {},
    element("span", {}, `${quantity} × ${name}`), element("span", {}, formatMoney(total))));
  byId("lines").replaceChildren(
    element("ul", { class: "short-lines" }, ...lines),
    totalsList(order),
    element("h3", {}, "Shipping address"),
    element("p", { class: "address" }, addressText(order.shipping_address)),
    order.email === null ? null : element("p", { class: "hint" }, `Messages go to ${order.email}`),
  );
  drawStatus(order);
  showCancellation(order, refresh);
  byId("order").hidden = false;
}

// an address is a text or has fields
function addressText(address) {
  if (typeof address === "string") return address;
  const { recipient, line1, line2, postal_code, city, region, country } = address;
  const town = [postal_code, city].join(" ");
  return [recipient, line1, line2, town, region, countryName(country)].filter(Boolean).join("\n");
}

function drawStatus(order) {
  byId("status").textContent = statusText(order);
  drawSteps(order);
  const isPending = order.status === "pending";
  if (isPending && byId("payment").hidden) showPayment(order);
  byId("payment").hidden = !isPending;
}

function statusText({ status, payment_status: payment, fulfilment_status: fulfilment }) {
  if (status === "processing") return SHIPPED_TEXTS[fulfilment] ?? TEXTS.processing;
  const text = TEXTS[status] ?? status;
  return status === "cancelled" && payment === "refunded" ? `${text} Your payment was refunded.` : text;
}

function drawSteps({ status, fulfilment_status: fulfilment }) {
  const isClosed = ["cancelled", "expired"].includes(status);
  const steps = isClosed ? ["Ordered", status === "expired" ? "Expired" : "Cancelled"] : STEPS;
  const reached = isClosed ? 1 : stepReached(status, fulfilment);
  byId("steps").replaceChildren(...steps.map((name, index) =>
    element("li", { class: index <= reached ? "done" : null, "aria-current": index === reached ? "step" : null }, name)));
}

function stepReached(status, fulfilment) {
  if (status === "pending") return 0;
  if (status === "completed") return 3;
  return fulfilment === "unfulfilled" ? 1 : 2;
}
