// The view of the cart.
import { hasCode, read } from "./api.js";
import { MAX_QUANTITY, readCart, setQuantity } from "./cart.js";
import { changesNotice } from "./cart-changes.js";
import { byId, element, pageUrl } from "./dom.js";
import { drawAccountLinks } from "./header.js";
import { productImage } from "./images.js";
import { clearMessage, emptyCartNotice, showError } from "./messages.js";
import { formatMoney } from "./money.js";
import { problemsOfContents } from "./readiness.js";
import { takeOverGuest } from "./sign-in.js";
import { totalsList } from "./totals.js";
import { voucherForm, VoucherError } from "./voucher.js";

// products by id, for pictures and links; null if the product is no longer sold
const products = new Map();
let pending = Promise.resolve();

drawAccountLinks();

await enqueue(async () => {
  await takeOverGuest();
  return readCart();
});
// another tab may have changed the cart
addEventListener("visibilitychange", () => document.visibilityState === "visible" && enqueue(readCart));
addEventListener("pageshow", (event) => event.persisted && enqueue(readCart));

/**
 * Send the requests one after another, because each needs the entity tag of the previous response.
 */
function enqueue(request, focusId = null) {
  pending = pending.then(async () => {
    try {
      await draw(await request());
      clearMessage();
      if (focusId !== null) (byId(focusId) ?? byId("main")).focus();
    } catch (error) {
      await showFailure(error);
    }
  });
  return pending;
}

function showFailure(error) {
  if (error instanceof VoucherError) error.show();
  else showError(error, byId("message"), element("button", { type: "button", click: () => enqueue(readCart) }, "Try again"));
}

async function draw(cart) {
  if (cart?.status !== "open" || cart.lines.length === 0) return byId("cart").replaceChildren(emptyCartNotice(cart));
  const changes = changesNotice();
  if (changes !== null) byId("changes").replaceChildren(changes);
  await Promise.all(cart.lines.map(readProduct));
  return byId("cart").replaceChildren(
    element("ul", { class: "lines" }, ...cart.lines.map(cartLine)),
    element("div", { class: "total" }, voucherForm(cart, enqueue), ...sums(cart), ...nextStep(cart)),
  );
}

async function readProduct({ product_id: id }) {
  if (products.has(id)) return;
  try {
    products.set(id, await read("/products/{product_id}", { path: { product_id: id } }));
  } catch (error) {
    if (!hasCode(error, "inventory.product_not_found")) throw error;
    products.set(id, null);
  }
}

function sums(cart) {
  if (cart.totals === null) return [];
  const hint = cart.shipping_address === null ? [element("p", { class: "hint" }, "Shipping and taxes depend on your address.")] : [];
  return [totalsList(cart.totals), ...hint];
}

function nextStep(cart) {
  const problems = problemsOfContents(cart);
  if (problems.length === 0) return [element("a", { class: "button primary wide", href: "checkout.html" }, "Check out")];
  return [element("div", { class: "problems" },
    element("p", {}, "Before you check out:"),
    element("ul", {}, ...problems.map((text) => element("li", {}, text))))];
}

function cartLine(line) {
  const product = products.get(line.product_id);
  return element("li", { class: "line" },
    element("div", { class: "line-picture" }, productImage(product?.images ?? [], line.name)),
    element("div", { class: "line-name" },
      product === null ? line.name : element("a", { href: productUrl(product) }, line.name),
      line.unit_price === null ? null : element("p", { class: "hint" }, `${formatMoney(line.unit_price)} each`),
      stockNote(line),
    ),
    quantityField(line),
    element("p", { class: "price" }, line.total === null ? "–" : formatMoney(line.total)),
    element("button", {
      type: "button",
      class: "link",
      click: () => enqueue(() => setQuantity(line.product_id, 0), "main"),
      "aria-label": `Remove ${line.name}`,
    }, "Remove"),
  );
}

// a product without a family is its own family, so the family id is the id of the product
function productUrl({ family, product_id: id, sku }) {
  return pageUrl("product.html", { slug: family ?? id, sku });
}

function stockNote({ unit_price: price, available, quantity }) {
  if (price !== null && available >= quantity) return null;
  if (price === null) return element("p", { class: "sold-out" }, "Not sold any more");
  return element("p", { class: "sold-out" }, available === 0 ? "Sold out" : `Only ${available} left`);
}

function quantityField(line) {
  const id = `quantity-${line.product_id}`;
  const input = element("input", { id, type: "number", min: 1, max: MAX_QUANTITY, value: line.quantity, inputmode: "numeric" });
  input.addEventListener("change", () => {
    const quantity = Math.min(Math.max(Math.trunc(input.valueAsNumber) || 1, 1), MAX_QUANTITY);
    return enqueue(() => setQuantity(line.product_id, quantity), id);
  });
  return element("div", { class: "line-quantity" },
    element("label", { for: id }, "Quantity", element("span", { class: "visually-hidden" }, ` of ${line.name}`)), input);
}
