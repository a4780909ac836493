// Changes of products in the cart since the buyer last saw it. The API lists each change once.
import { element } from "./dom.js";
import { formatMoney } from "./money.js";
import { store, stored } from "./storage.js";

const STORAGE_KEY = "storefront.changes";

/**
 * Store the changes of a cart until a page shows them: every page reads the cart, but only some
 * pages show its changes.
 */
export function noteChanges(cart) {
  if (cart.changes.length === 0) return;
  const names = new Map(cart.lines.map((line) => [line.product_id, line.name]));
  const texts = cart.changes.map((change) => changeText(change, names.get(change.product_id) ?? "A product"));
  store(STORAGE_KEY, [...(stored(STORAGE_KEY, sessionStorage) ?? []), ...texts], sessionStorage);
}

/** Return a notice with the changes that no page has shown yet, or null. */
export function changesNotice() {
  const texts = stored(STORAGE_KEY, sessionStorage) ?? [];
  store(STORAGE_KEY, null, sessionStorage);
  if (texts.length === 0) return null;
  return element("div", { class: "notice", role: "status" },
    element("p", {}, "Since you last looked at the cart:"),
    element("ul", {}, ...texts.map((text) => element("li", {}, text))));
}

function changeText({ kind, previous_price, price, available }, name) {
  switch (kind) {
    case "price_changed":
      return `${name} now costs ${formatMoney(price)}. It was ${formatMoney(previous_price)}.`;
    case "less_available":
      return `Only ${available} of ${name} are left.`;
    case "unavailable":
      return `${name} is sold out.`;
    case "available_again":
      return `${name} is available again.`;
    case "removed":
      return `${name} is not sold any more.`;
    default:
      return `${name} has changed.`;
  }
}
