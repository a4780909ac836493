// The view of the checkout. What the buyer enters is saved in the cart, so that a reload keeps it.
import { hasCode, read } from "./api.js";
import { setUpAccount, showAccount } from "./account.js";
import { AddressFields, isSameAddress } from "./address-fields.js";
import { signedInName } from "./buyer.js";
import { changeFields, checkOut, readCart } from "./cart.js";
import { changesNotice } from "./cart-changes.js";
import { countries } from "./countries.js";
import { byId, element, pageUrl } from "./dom.js";
import { checkRequired } from "./forms.js";
import { drawAccountLinks } from "./header.js";
import { clearMessage, emptyCartNotice, markFields, showError, unmarkField, unmarkFields } from "./messages.js";
import { formatMoney } from "./money.js";
import { forgetOrderKey, orderKey } from "./order-key.js";
import { problemsOf } from "./readiness.js";
import { chosenShippingOption, drawShippingOptions } from "./shipping-options.js";
import { takeOverGuest } from "./sign-in.js";
import { totalsList } from "./totals.js";

const form = byId("order");
const sameAddress = byId("same-address");
let shippingAddress = null;
let billingAddress = null;
let cart = null;
let saving = Promise.resolve();
let isOrdering = false;

drawAccountLinks();
sameAddress.addEventListener("change", drawBillingAddress);
form.addEventListener("change", () => save().catch(showSaveProblem));
form.addEventListener("input", (event) => unmarkField(event.target));
form.addEventListener("submit", submit);
// when the buyer comes back, the browser may show the previous page without a new load
addEventListener("pageshow", (event) => event.persisted && location.reload());
await start();

async function start() {
  try {
    await takeOverGuest();
    const shopSettings = await read("/shop");
    const served = countries(shopSettings.countries);
    shippingAddress = new AddressFields("shipping", served);
    // an invoice can go to every country
    billingAddress = new AddressFields("billing", countries([]));
    shippingAddress.draw();
    setUpAccount(load);
    await load();
  } catch (error) {
    showError(error, byId("message"), element("button", { type: "button", click: () => location.reload() }, "Try again"));
  }
}

/** Read the cart, and copy its values into the inputs that are empty. */
async function load() {
  cart = await readCart();
  byId("checkout").hidden = cart?.status !== "open" || cart.lines.length === 0;
  if (byId("checkout").hidden) {
    byId("message").replaceChildren(emptyCartNotice(cart));
    return;
  }
  clearMessage();
  showAccount();
  if (byId("email").value === "") byId("email").value = cart.email ?? "";
  shippingAddress.fill(cart.shipping_address);
  fillBillingAddress();
  await draw();
}

async function draw() {
  const changes = changesNotice();
  if (changes !== null) byId("changes").replaceChildren(changes);
  drawSummary();
  drawProblems();
  await drawShippingOptions(cart);
}

function fillBillingAddress() {
  if (cart.billing_address !== null) sameAddress.checked = false;
  drawBillingAddress();
  if (billingAddress.isDrawn) billingAddress.fill(cart.billing_address);
}

function drawBillingAddress() {
  if (sameAddress.checked) billingAddress.remove();
  else if (!billingAddress.isDrawn) billingAddress.draw();
}

function drawSummary() {
  const lines = cart.lines.map(({ name, quantity, total }) => element("li", {},
    element("span", {}, `${quantity} × ${name}`), element("span", {}, total === null ? "–" : formatMoney(total))));
  byId("summary").replaceChildren(
    element("ul", { class: "short-lines" }, ...lines),
    cart.totals === null ? element("p", {}, "There is no total for this cart yet.") : totalsList(cart.totals),
    element("p", { class: "hint" }, element("a", { href: "cart.html" }, "Change the cart")),
  );
  byId("place").textContent = cart.totals === null ? "Place the order" : `Place the order for ${formatMoney(cart.totals.total)}`;
}

// the form says itself that an e-mail or an address is missing
function drawProblems() {
  const texts = problemsOf(cart).filter(({ field }) => !["/email", "/shipping_address"].includes(field)).map(({ text }) => text);
  const list = element("div", { class: "problems" }, element("p", {}, "Before you order:"),
    element("ul", {}, ...texts.map((text) => element("li", {}, text))));
  byId("problems").replaceChildren(...(texts.length === 0 ? [] : [list]));
}

/** Save the inputs that differ from the cart. Each request waits for the previous one. */
function save() {
  saving = saving.catch(() => null).then(async () => {
    const fields = changedFields();
    if (Object.keys(fields).length === 0) return;
    unmarkFields(form);
    cart = await changeFields(fields);
    await draw();
  });
  return saving;
}

// an error message at one input must not move the focus away from the next input
function showSaveProblem(error) {
  return markFields(form, error).length > 0 || !error.problem?.errors?.length ? showProblem(error) : undefined;
}

function changedFields() {
  const [address, email, method] = [shippingAddress.entered(), byId("email").value.trim(), chosenShippingOption()];
  const current = cart.shipping_method ?? cart.totals?.shipping_line?.code ?? null;
  return {
    ...(signedInName() === null && email !== "" && email !== cart.email ? { email } : {}),
    ...(address !== null && !isSameAddress(address, cart.shipping_address) ? { shipping_address: address } : {}),
    ...changedBillingAddress(),
    ...(method !== null && method !== current ? { shipping_method: method } : {}),
  };
}

function changedBillingAddress() {
  const address = billingAddress.isDrawn ? billingAddress.entered() : null;
  // while the inputs are incomplete, the cart keeps the previous address
  if (billingAddress.isDrawn && address === null) return {};
  const isSame = address === null ? cart.billing_address === null : isSameAddress(address, cart.billing_address);
  return isSame ? {} : { billing_address: address };
}

async function submit(event) {
  event.preventDefault();
  if (isOrdering) return;
  clearMessage();
  if (!checkRequired(form)) return;
  setOrdering(true);
  try {
    const total = cart.totals?.total ?? null;
    await save();
    if (await isReady(total)) location.assign(pageUrl("order.html", { id: await placeOrder(total) }));
    else setOrdering(false);
  } catch (error) {
    await showProblem(error).catch(showError);
    setOrdering(false);
  }
}

/** Tell whether the cart can be ordered for the total that the buyer saw before the click. */
async function isReady(total) {
  if (cart?.status !== "open") {
    await load();
    return false;
  }
  if (cart.readiness.length > 0) {
    byId("problems").scrollIntoView();
    return false;
  }
  if (total?.amount === cart.totals.total.amount && total.currency === cart.totals.total.currency) return true;
  showNewTotal();
  return false;
}

/** Place the order and return its id. */
async function placeOrder(total) {
  const order = await checkOut(total, orderKey(cart, total));
  forgetOrderKey();
  return order.order_id;
}

async function showProblem(error) {
  // The API repeats such an error for the same key. After a lost response the key must stay the same.
  if (error.problem && !error.problem.retryable) forgetOrderKey();
  if (hasCode(error, "orders.cart_closed", "auth.unauthenticated", "orders.cart_not_found")) return load();
  if (hasCode(error, "orders.total_changed", "orders.cart_changed", "request.if_match_failed")) {
    await load();
    return cart?.status === "open" ? showNewTotal() : undefined;
  }
  if (hasCode(error, "inventory.out_of_stock", "orders.cart_not_ready")) await load();
  const others = markFields(form, error);
  const details = others.length === 0 ? [] : [element("ul", {}, ...others.map(({ field, message }) => element("li", {}, `${field}: ${message}`)))];
  return showError(error, byId("message"), ...details);
}

function showNewTotal() {
  const text = `The total is now ${formatMoney(cart.totals.total)}. Check your order, then place it again.`;
  const notice = element("p", { class: "notice", role: "alert", tabindex: "-1" }, text);
  byId("message").replaceChildren(notice);
  notice.focus();
}

function setOrdering(value) {
  isOrdering = value;
  byId("place").disabled = value;
}
