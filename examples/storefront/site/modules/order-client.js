// The client for the order of the page: as the buyer, or with the token of a link to this order only.
import { createClient, shop, tokenStorage } from "./api.js";
import { pageUrl } from "./dom.js";
import { store, stored } from "./storage.js";
import { unwrap } from "../markethall-client.js";

const STORAGE_KEY = "storefront.order-token";

takeLink();
// a link that is opened in this tab while it shows an order
addEventListener("hashchange", () => location.hash.includes("order_token=") && location.reload());

export const path = { order_id: new URLSearchParams(location.search).get("id") || "-" };
const link = stored(STORAGE_KEY, sessionStorage);
const token = link?.order_id === path.order_id ? link.order_token : null;
/** Whether the page shows the order by the token of a link. */
export const isByLink = token !== null;
export const orderShop = isByLink ? createOrderClient() : shop;

/** Return a client for this order that sends a request again as often as `retries` says. */
export function createOrderClient(retries) {
  return isByLink ? createClient({ retries, send: sendWithToken }) : createClient({ tokenStorage, retries });
}

/** Send a GET request. Returns the body; throws as `unwrap` of the client does. */
export function readOrder(address, params = {}) {
  return unwrap(orderShop.GET(address, { params: { path, ...params } }));
}

/** Forget the token, because it has expired. */
export function forgetLink() {
  store(STORAGE_KEY, null, sessionStorage);
}

// Moves the token out of the address, so that the address can be copied and a reload keeps the token.
function takeLink() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const [order_id, order_token] = [fragment.get("order_id"), fragment.get("order_token")];
  if (order_id === null || order_token === null) return;
  store(STORAGE_KEY, { order_id, order_token }, sessionStorage);
  history.replaceState(null, "", pageUrl("order.html", { id: order_id }));
}

function sendWithToken(request) {
  request.headers.set("Authorization", `Bearer ${token}`);
  return fetch(request);
}
