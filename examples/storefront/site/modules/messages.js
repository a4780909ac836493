// Shows errors, mostly from problem documents (RFC 9457).
import { apiUrl } from "./api.js";
import { byId, element, pageUrl } from "./dom.js";
import { ProblemError } from "../markethall-client.js";

// instead of messages for developers, such as one with a regular expression
const FIELD_TEXTS = { string_pattern_mismatch: "This does not look right. Please check it." };

/** Replace the content of the target by an error message, and move the focus to it. */
export function showError(error, target = byId("message"), ...details) {
  showErrorText(errorText(error), target, ...details);
}

export function showErrorText(text, target = byId("message"), ...details) {
  const box = element("div", { class: "error", role: "alert", tabindex: "-1" }, element("p", {}, text));
  box.append(...details);
  target.replaceChildren(box);
  box.focus();
}

export function clearMessage(target = byId("message")) {
  target.replaceChildren();
}

/** Return the text for a cart that is empty, is missing (null), or is already an order. */
export function emptyCartNotice(cart) {
  const products = element("a", { href: "index.html" }, "See all products");
  if (!cart?.order_id) return element("p", { class: "empty" }, "The cart is empty. ", products);
  const order = element("a", { href: pageUrl("order.html", { id: cart.order_id }) }, "See your order");
  return element("p", { class: "empty" }, "You have ordered this cart. ", order, " · ", products);
}

/** Return a sentence for people. */
export function errorText(error) {
  if (error instanceof ProblemError) return problemText(error);
  if (error instanceof TypeError) return unreachableText();
  return `Something went wrong: ${error.message}`;
}

/**
 * Show the errors of a problem document at the inputs that they name by `data-pointer`.
 * Returns the messages that belong to no input.
 */
export function markFields(form, error) {
  unmarkFields(form);
  const errors = error instanceof ProblemError ? (error.problem.errors ?? []) : [];
  return errors.filter(({ field, code, message }) => !markField(form, field, FIELD_TEXTS[code] ?? message));
}

export function unmarkFields(form) {
  for (const input of form.querySelectorAll("[aria-invalid]")) unmarkField(input);
}

export function unmarkField(input) {
  document.getElementById(`${input.id}-error`)?.remove();
  input.removeAttribute("aria-invalid");
  input.removeAttribute("aria-describedby");
}

/** Show a message at the input with this JSON pointer. Returns whether there is such an input. */
export function markField(form, pointer, message) {
  const inputs = [...form.querySelectorAll("[data-pointer]")];
  const input = inputs.find((one) => one.dataset.pointer === pointer);
  if (input === undefined) return false;
  markInput(input, message);
  return true;
}

/** Show a message at the input, unless the input has a message already. */
export function markInput(input, message) {
  if (input.hasAttribute("aria-invalid")) return;
  const note = element("p", { class: "field-error", id: `${input.id}-error` }, message);
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", note.id);
  input.after(note);
}

function problemText({ code, problem, response }) {
  if (code === "request.rate_limited") {
    return `Too many requests. Try again in ${response.headers.get("Retry-After") ?? "a few"} seconds.`;
  }
  if (code === "auth.unauthenticated") return "You are not signed in, or your session has ended.";
  return problem.detail || problem.title;
}

function unreachableText() {
  return (
    `The API at ${apiUrl} cannot be reached from this page. Either it is not running, or it refuses pages ` +
    `of ${location.origin}: then start it with MARKETHALL_CORS_ORIGINS=${location.origin}.`
  );
}
