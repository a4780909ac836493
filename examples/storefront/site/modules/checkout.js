// The view of the checkout: the buyer, the address, and the order.
import { hasCode, read, shop } from "./api.js";
import { ensureGuest, signedInName, signIn, signOut } from "./buyer.js";
import { emptyCart, showCartCount } from "./cart.js";
import { readCart, subtotals } from "./cart-contents.js";
import { countries } from "./countries.js";
import { byId, element, pageUrl } from "./dom.js";
import { clearMessage, markField, markFields, showError, unmarkFields } from "./messages.js";
import { formatMoney } from "./money.js";
import { idempotencyKey, newKey, ProblemError, unwrap } from "../markethall-client.js";

const FIELDS = ["recipient", "line1", "line2", "postal_code", "city", "country"];
const form = byId("order");
let contents = [];

showCartCount();
form.addEventListener("submit", submit);
form.addEventListener("change", showBuyer);
byId("sign-out").addEventListener("click", leave);
await load();

async function load() {
  try {
    const [shopSettings, lines] = await Promise.all([read("/shop"), readCart()]);
    contents = lines.filter(({ product }) => product !== null);
    clearMessage();
    if (contents.length === 0) {
      byId("message").replaceChildren(element("p", { class: "empty" }, "The cart is empty. ",
        element("a", { href: "index.html" }, "See all products")));
      return;
    }
    drawCountries(shopSettings.countries);
    drawSummary();
    await showBuyer();
    byId("checkout").hidden = false;
  } catch (error) {
    showError(error);
  }
}

function drawCountries(codes) {
  const choose = element("option", { value: "" }, "Choose …");
  const options = countries(codes).map(([code, name]) => element("option", { value: code }, name));
  byId("country").replaceChildren(choose, ...options);
}

function drawSummary() {
  const lines = contents.map(({ line, product }) => element("li", {},
    element("span", {}, `${line.quantity} × ${product.name}`),
    element("span", {}, formatMoney({ ...product.price, amount: product.price.amount * line.quantity }))));
  const sums = subtotals(contents).map((sum) => element("p", { class: "sum" }, "Subtotal ", element("strong", {}, formatMoney(sum))));
  byId("summary").replaceChildren(element("ul", { class: "short-lines" }, ...lines), ...sums,
    element("p", { class: "hint" }, "The order shows the total with shipping before you pay."));
}

async function showBuyer() {
  const name = await signedInName();
  const signsIn = form.elements.buyer.value === "user";
  byId("signed-in").hidden = name === null;
  byId("buyer-name").textContent = name ?? "";
  byId("choose-buyer").hidden = name !== null;
  byId("sign-in").hidden = !signsIn;
  byId("email-field").hidden = name !== null || signsIn;
}

async function leave() {
  try {
    await signOut();
  } catch (error) {
    showError(error);
  }
  await showBuyer();
}

async function submit(event) {
  event.preventDefault();
  clearMessage();
  unmarkFields(form);
  if (!validate()) return;
  byId("place").disabled = true;
  try {
    await identify();
    const order = await placeOrder();
    emptyCart();
    sessionStorage.removeItem("storefront.order");
    location.assign(pageUrl("order.html", { id: order.order_id }));
  } catch (error) {
    await showProblem(error);
  } finally {
    byId("place").disabled = false;
  }
}

/** Mark required inputs that are empty, and focus the first one. Returns whether there is none. */
function validate() {
  const inputs = [...form.querySelectorAll("[data-pointer][required]")];
  const empty = inputs.filter((input) => !input.closest("[hidden]") && input.value.trim() === "");
  for (const input of empty) markField(form, input.dataset.pointer, "Fill in this field.");
  empty[0]?.focus();
  return empty.length === 0;
}

async function identify() {
  if ((await signedInName()) !== null) return;
  if (form.elements.buyer.value === "user") await signIn(byId("username").value, byId("password").value);
  else await ensureGuest();
  await showBuyer();
}

async function placeOrder() {
  const body = orderBody();
  return unwrap(shop.POST("/orders", { params: { header: idempotencyKey(keyOf(body)) }, body }));
}

function orderBody() {
  const address = FIELDS.map((name) => [name, byId(name).value.trim()]).filter(([, value]) => value !== "");
  const body = {
    lines: contents.map(({ line }) => ({ product_id: line.product_id, quantity: line.quantity })),
    shipping_address: Object.fromEntries(address),
  };
  const email = byId("email").value.trim();
  return byId("email-field").hidden ? body : { ...body, email };
}

/**
 * Return the key of this order. It is stored with the request, so that the same order is not placed
 * twice if the page was reloaded before the response arrived. Another order gets another key.
 */
function keyOf(body) {
  const request = JSON.stringify(body);
  const stored = JSON.parse(sessionStorage.getItem("storefront.order") ?? "null");
  if (stored?.request === request) return stored.key;
  const key = newKey();
  sessionStorage.setItem("storefront.order", JSON.stringify({ request, key }));
  return key;
}

async function showProblem(error) {
  // The API repeats such an error for the same key. After a lost response the key must stay the same.
  if (error instanceof ProblemError && !error.problem.retryable) sessionStorage.removeItem("storefront.order");
  if (hasCode(error, "auth.unauthenticated")) await leave();
  if (hasCode(error, "inventory.out_of_stock")) return showShortLines(error);
  const others = markFields(form, error);
  const details = others.length === 0 ? [] : [element("ul", {}, ...others.map(({ field, message }) => element("li", {}, `${field}: ${message}`)))];
  showError(error, byId("message"), ...details);
}

function showShortLines(error) {
  const names = new Map(contents.map(({ product }) => [product.product_id, product.name]));
  const lines = error.problem.details.lines.map(({ product_id, requested, available }) =>
    element("li", {}, `${names.get(product_id) ?? "A product"}: ${available} left, ${requested} in the cart`));
  showError(error, byId("message"), element("ul", {}, ...lines), element("a", { href: "cart.html" }, "Change the cart"));
}
