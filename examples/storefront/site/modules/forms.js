// Forms: required inputs that are empty.
import { markField } from "./messages.js";

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

function emptyInputs(form) {
  const inputs = [...form.querySelectorAll("[data-pointer][required]")];
  return inputs.filter((input) => !input.closest("[hidden]") && input.value.trim() === "");
}
