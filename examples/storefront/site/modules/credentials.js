// The inputs of a sign-in, and of a new account.
import { hasCode } from "./api.js";
import { byId } from "./dom.js";
import { checkRequired } from "./forms.js";
import { clearMessage, markField, markFields, showError, unmarkFields } from "./messages.js";
import { register, signIn } from "./sign-in.js";

const PASSWORD_REASONS = {
  too_short: "The password is too short.",
  too_long: "The password is too long.",
  too_common: "Too many people use this password.",
  personal: "The password contains the name or the e-mail address.",
};

/** Show the inputs of a new account, or those of a sign-in. */
export function drawCredentials(isNew) {
  byId("new-email-field").hidden = !isNew;
  byId("username-label").textContent = isNew ? "User name" : "User name or e-mail";
  byId("password").autocomplete = isNew ? "new-password" : "current-password";
  byId("sign-in").textContent = isNew ? "Create the account" : "Sign in";
}

/** Sign in, or create the account; then call `done()`. Errors are shown in the form. */
export async function sendCredentials(form, isNew, done) {
  if (byId("sign-in").disabled) return;
  byId("sign-in").disabled = true;
  clearMessage();
  unmarkFields(form);
  try {
    if (!checkRequired(form)) return;
    await identify(isNew);
    await done();
  } catch (error) {
    if (!markCredentials(form, error)) showError(error);
  } finally {
    byId("sign-in").disabled = false;
  }
}

async function identify(isNew) {
  const [username, password] = [byId("username").value.trim(), byId("password").value];
  if (isNew) await register({ username, email: byId("new-email").value.trim(), password });
  else await signIn(username, password);
  byId("password").value = "";
}

/** Show an error at the input that caused it, and focus the input. Returns whether there is one. */
function markCredentials(form, error) {
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
