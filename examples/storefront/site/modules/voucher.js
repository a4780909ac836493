// The voucher of a cart: enter its code, or remove it.
import { removeVoucher, useVoucher } from "./cart.js";
import { byId, element } from "./dom.js";
import { problemsOf, voucherErrorText } from "./readiness.js";
import { ProblemError } from "../markethall-client.js";

/**
 * Return a form for the voucher. `enqueue(request, focusId)` sends the request, and draws the
 * returned cart.
 */
export function voucherForm(cart, enqueue) {
  if (cart.voucher_code !== null) return usedVoucher(cart, enqueue);
  const input = element("input", { id: "voucher", maxlength: 50, autocomplete: "off" });
  const form = element("form", { class: "voucher", novalidate: true },
    element("label", { for: "voucher" }, "Voucher"),
    element("div", { class: "field-row" }, input, element("button", { type: "submit" }, "Use")),
    element("div", { id: "voucher-message" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const code = input.value.trim();
    if (code === "") return input.focus();
    return enqueue(() => use(code), "remove-voucher");
  });
  return form;
}

function usedVoucher(cart, enqueue) {
  const problem = problemsOf(cart).find(({ field }) => field === "/voucher_code");
  const remove = () => enqueue(removeVoucher, "voucher");
  return element("div", { class: "voucher" },
    element("p", {}, "Voucher ", element("strong", {}, cart.voucher_code), " ",
      element("button", { type: "button", class: "link", id: "remove-voucher", click: remove, "aria-label": "Remove the voucher" }, "Remove")),
    problem === undefined ? null : element("p", { class: "field-error" }, problem.text));
}

// Show an unusable voucher at its input; the rest of the page stays as it is.
async function use(code) {
  try {
    return await useVoucher(code);
  } catch (error) {
    const text = error instanceof ProblemError ? voucherErrorText(error.problem) : null;
    if (text === null) throw error;
    throw new VoucherError(text);
  }
}

/** The cart cannot use a voucher. `show` writes the reason below the input. */
export class VoucherError extends Error {
  show() {
    const input = byId("voucher");
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", "voucher-error");
    byId("voucher-message").replaceChildren(element("p", { class: "field-error", id: "voucher-error", role: "alert" }, this.message));
    input.focus();
  }
}
