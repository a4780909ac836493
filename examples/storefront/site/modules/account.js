// The buyer at the checkout: a guest, a user who signs in, or a new account.
import { hasCode } from "./api.js";
import { signedInName, signOut } from "./buyer.js";
import { byId } from "./dom.js";
import { checkRequired } from "./forms.js";
import { clearMessage, markField, markFields, showError, unmarkField, unmarkFields } from "./messages.js";
import { register, signIn } from "./sign-in.js";

const form = byId("account");
const PASSWORD_REASONS = {
  too_short: "The password is too short.",
  too_long: "The password is too long.",
  too_common: "Too many people use this password.",
  personal: "The password contains the name or the e-mail address.",
};

/** Show the buyer. `changed()` is called after each sign-in and sign-out. */
export function setUpAccount(changed) {
  form.addEventListener("change", showAccount);
  form.addEventListener("input", (event) => unmarkField(event.target));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    return run(identify, changed);
  });
  byId("sign-out").addEventListener("click", () => run(signOut, changed));
  showAccount();
}

export function showAccount() {
  const name = signedInName();
  const choice = form.elements.buyer.value;
  const isNew = choice === "new";
  byId("signed-in").hidden = name === null;
  byId("buyer-name").textContent = name ?? "";
  byId("choose-buyer").hidden = name !== null;
  byId("credentials").hidden = choice === "guest";
  byId("new-email-field").hidden = !isNew;
  byId("username-label").textContent = isNew ? "User name" : "User name or e-mail";
  byId("password").autocomplete = isNew ? "new-password" : "current-password";
  byId("sign-in").textContent = isNew ? "Create the account" : "Sign in";
  byId("email-field").hidden = name !== null;
  // show the form of the order only after a sign-in or the choice to be a guest: a sign-in changes
  // the cart
  byId("order").hidden = name === null && choice !== "guest";
}

async function run(action, changed) {
  byId("sign-in").disabled = true;
  clearMessage();
  unmarkFields(form);
  try {
    await action();
    await changed();
  } catch (error) {
    if (!markAccountField(error)) showError(error);
  } finally {
    byId("sign-in").disabled = false;
    showAccount();
  }
}

/**
 * Show an error at the input that caused it, and focus the input. Returns whether the page shows
 * it.
 */
function markAccountField(error) {
  if (hasCode(error, "users.password_unacceptable")) {
    markField(form, "/password", PASSWORD_REASONS[error.problem.details.reason] ?? error.problem.detail);
  } else if (hasCode(error, "users.username_taken")) {
    markField(form, "/username", "Another account has this name.");
  } else if (hasCode(error, "users.email_taken")) {
    markField(form, "/email", "There is an account with this address: sign in instead.");
  } else if (markFields(form, error).length > 0) {
    return false;
  }
  const marked = form.querySelector("[aria-invalid]");
  marked?.focus();
  return marked !== null;
}

async function identify() {
  if (form.elements.buyer.value === "guest" || !checkRequired(form)) return;
  const [username, password] = [byId("username").value.trim(), byId("password").value];
  if (form.elements.buyer.value === "new") await register({ username, email: byId("new-email").value.trim(), password });
  else await signIn(username, password);
  byId("password").value = "";
}
