// Forms: empty required inputs, and the values of an address.
import { byId } from "./dom.js";
import { markField } from "./messages.js";

const ADDRESS_FIELDS = ["recipient", "line1", "line2", "postal_code", "city", "country"];

/**
 * Mark the required inputs that are empty, and focus the first one. Returns true if all are filled
 * in.
 */
export function checkRequired(form) {
  const empty = emptyInputs(form);
  for (const input of empty) markField(form, input.dataset.pointer, "Fill in this field.");
  empty[0]?.focus();
  return empty.length === 0;
}

/** Return the address of the inputs, or null if required inputs are empty. */
export function enteredAddress() {
  const values = ADDRESS_FIELDS.map((name) => [name, byId(name).value.trim()]).filter(([, value]) => value !== "");
  const isComplete = ADDRESS_FIELDS.every((name) => !byId(name).required || byId(name).value.trim() !== "");
  return isComplete ? Object.fromEntries(values) : null;
}

/** Write an address into the inputs that are empty. */
export function fillAddress(address) {
  for (const name of ADDRESS_FIELDS) if (byId(name).value === "") byId(name).value = address?.[name] ?? "";
}

/** Tell whether two addresses have the same fields; absent fields and null are the same. */
export function isSameAddress(one, other) {
  return ADDRESS_FIELDS.every((name) => (one?.[name] ?? "") === (other?.[name] ?? ""));
}

function emptyInputs(form) {
  const inputs = [...form.querySelectorAll("[data-pointer][required]")];
  return inputs.filter((input) => !input.closest("[hidden]") && input.value.trim() === "");
}
