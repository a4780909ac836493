// The page that asks for a link to an order, for buyers without an account or on another device.
import { read, shop } from "./api.js";
import { showCartCount } from "./cart.js";
import { byId, element } from "./dom.js";
import { checkRequired } from "./forms.js";
import { drawAccountLinks } from "./header.js";
import { clearMessage, markFields, showError, unmarkField } from "./messages.js";
import { unwrap } from "../markethall-client.js";

const form = byId("lookup");

form.addEventListener("input", (event) => unmarkField(event.target));
form.addEventListener("submit", send);
// without its handler, the browser itself would send the form, and the input would be lost
form.querySelector("button").disabled = false;
drawAccountLinks();
void showCartCount();

async function send(event) {
  event.preventDefault();
  const button = form.querySelector("button");
  clearMessage();
  if (button.disabled || !checkRequired(form)) return;
  button.disabled = true;
  try {
    const { order_number_prefix: prefix } = await read("/shop");
    const body = { number: withPrefix(byId("number").value.trim(), prefix), email: byId("email").value.trim() };
    await unwrap(shop.POST("/orders/lookup", { body }));
    showSent();
  } catch (error) {
    if (markFields(form, error).length > 0 || form.querySelector("[aria-invalid]") === null) showError(error);
    else form.querySelector("[aria-invalid]").focus();
  } finally {
    button.disabled = false;
  }
}

/** Return the number as the shop writes it: buyers leave out the prefix, or write it in small letters. */
function withPrefix(number, prefix) {
  if (/^\d+$/.test(number)) return prefix + number;
  const hasPrefix = number.toLowerCase().startsWith(prefix.toLowerCase());
  return hasPrefix ? prefix + number.slice(prefix.length) : number;
}

// the API does not tell whether there is such an order, so that no one can search for orders of others
function showSent() {
  const notice = element("div", { class: "notice", role: "status", tabindex: "-1" },
    element("p", {}, "If there is an order with this number and this address, we have sent a link to the address. It works for an hour."),
    element("p", { class: "hint" }, "This example sends no mail: in development, the link is in the log of the API, in the line ",
      element("code", {}, "order.link_issued"), "."));
  byId("message").replaceChildren(notice);
  notice.focus();
}
