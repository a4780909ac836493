// The view of an order: what was ordered, the payment, the shipments and all changes. It updates by itself.
import { hasCode } from "./api.js";
import { showCancellation } from "./cancellation.js";
import { showCartCount } from "./cart.js";
import { countryName } from "./countries.js";
import { byId, element, pageUrl } from "./dom.js";
import { drawAccountLinks } from "./header.js";
import { showInvoice } from "./invoice.js";
import { clearMessage, showError } from "./messages.js";
import { formatMoney } from "./money.js";
import { forgetLink, isByLink, path, readOrder } from "./order-client.js";
import { statusText } from "./order-status.js";
import { watchOrder } from "./order-updates.js";
import { showPayment } from "./payment.js";
import { drawReturns } from "./returns.js";
import { drawShipments, drawTimeline } from "./timeline.js";
import { totalsList } from "./totals.js";

const STEPS = ["Ordered", "Paid, in preparation", "On its way", "Delivered"];
const FIRST_PAGE = { query: { limit: 100 } };

let shown = null;

drawAccountLinks();
void showCartCount();
addEventListener("pageshow", (event) => event.persisted && location.reload());
await start();

async function start() {
  try {
    await refresh();
    clearMessage();
    await watchOrder({ shownVersion: () => shown.version, changed: refresh, showLost });
  } catch (error) {
    if (hasCode(error, "orders.not_found", "request.invalid")) showNotFound();
    else if (hasCode(error, "auth.unauthenticated")) showUnauthenticated();
    else showError(error, byId("message"), element("button", { type: "button", click: () => location.reload() }, "Try again"));
  }
}

async function refresh() {
  const [order, timeline, fulfilments, returns] = await Promise.all([
    readOrder("/orders/{order_id}"),
    readOrder("/orders/{order_id}/timeline"),
    readOrder("/orders/{order_id}/fulfilments", FIRST_PAGE),
    readOrder("/orders/{order_id}/returns", FIRST_PAGE),
  ]);
  draw(order);
  drawTimeline(timeline.items);
  drawShipments(fulfilments.items, order.lines);
  drawReturns(order, returns.items, refresh);
  shown = order;
}

function showNotFound() {
  showNotice("There is no such order, or it belongs to another buyer. ");
}

function showUnauthenticated() {
  const signIn = element("a", { href: pageUrl("sign-in.html", { next: pageUrl("order.html", { id: path.order_id }) }) }, "Sign in");
  if (isByLink) forgetLink();
  if (isByLink) showNotice("The link to this order has expired. Ask for another one: ");
  else showNotice("You are not signed in, or your session has ended. ", signIn, " · ");
}

function showNotice(text, ...links) {
  byId("order").hidden = true;
  byId("message").replaceChildren(element("p", { class: "empty" }, text, ...links, element("a", { href: "find-order.html" }, "Find my order")));
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
    ...billingAddress(order),
    order.email === null ? null : element("p", { class: "hint" }, `Messages go to ${order.email}`),
  );
  drawStatus(order);
  showInvoice(order);
  showCancellation(order, refresh);
  byId("order").hidden = false;
}

function billingAddress({ billing_address: address }) {
  if (address === null) return [];
  return [element("h3", {}, "Billing address"), element("p", { class: "address" }, addressText(address))];
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
