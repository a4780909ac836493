// The orders of the buyer, the newest first.
import { hasCode, read } from "./api.js";
import { currentBuyer, signedInName } from "./buyer.js";
import { showCartCount } from "./cart.js";
import { formatDay } from "./dates.js";
import { byId, element, pageUrl } from "./dom.js";
import { drawAccountLinks } from "./header.js";
import { clearMessage, showError } from "./messages.js";
import { formatMoney } from "./money.js";
import { statusLabel } from "./order-status.js";
import { takeOverGuest } from "./sign-in.js";

const PAGE_SIZE = 10;
let cursor = null;

drawAccountLinks();
void showCartCount();
byId("more").addEventListener("click", showMore);
await load();

async function load() {
  if (currentBuyer() === null) return showSignIn("Sign in to see your orders.");
  try {
    await takeOverGuest();
    drawPage(await readPage());
    clearMessage();
    if (byId("orders").children.length === 0) showNoOrders();
  } catch (error) {
    if (hasCode(error, "auth.unauthenticated")) showSignIn("Your session has ended. Sign in to see your orders.");
    else showError(error, byId("message"), element("button", { type: "button", click: load }, "Try again"));
  }
}

async function showMore() {
  byId("more").disabled = true;
  try {
    const shown = byId("orders").children.length;
    drawPage(await readPage(cursor));
    clearMessage();
    byId("orders").children[shown]?.querySelector("a").focus();
  } catch (error) {
    showError(error);
  } finally {
    byId("more").disabled = false;
  }
}

function readPage(from = null) {
  return read("/orders", { query: { limit: PAGE_SIZE, ...(from === null ? {} : { cursor: from }) } });
}

function drawPage(page) {
  byId("orders").append(...page.items.map(orderItem));
  cursor = page.next_cursor;
  byId("more").hidden = cursor === null;
}

function orderItem(order) {
  const units = order.lines.reduce((sum, line) => sum + line.quantity, 0);
  const names = order.lines.map(({ name, quantity }) => (quantity === 1 ? name : `${quantity}\u00a0×\u00a0${name}`));
  return element("li", { class: "order-item" },
    element("h2", {}, element("a", { href: pageUrl("order.html", { id: order.order_id }) }, `Order ${order.number}`)),
    element("p", { class: "order-status" }, statusLabel(order)),
    element("p", { class: "hint" }, formatDay(order.created_at), ` · ${units === 1 ? "1 unit" : `${units} units`}`),
    element("p", { class: "price" }, formatMoney(order.total)),
    element("p", { class: "order-names" }, names.join(", ")));
}

function showSignIn(text) {
  const link = element("a", { class: "button primary", href: pageUrl("sign-in.html", { next: "orders.html" }) }, "Sign in");
  byId("message").replaceChildren(element("div", { class: "empty" }, element("p", {}, text), link));
}

function showNoOrders() {
  const whose = signedInName() === null ? "You have ordered nothing in this browser yet. " : "You have ordered nothing yet. ";
  byId("message").replaceChildren(element("p", { class: "empty" }, whose, element("a", { href: "index.html" }, "See all products")));
}
