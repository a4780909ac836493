// The buyer at the checkout: a guest, a user who signs in, or a new account.
import { signedInName } from "./buyer.js";
import { drawCredentials, sendCredentials } from "./credentials.js";
import { byId } from "./dom.js";
import { drawAccountLinks } from "./header.js";
import { unmarkField } from "./messages.js";

const form = byId("account");

/** Show the buyer. `changed()` is called after a sign-in. */
export function setUpAccount(changed) {
  form.addEventListener("change", showAccount);
  form.addEventListener("input", (event) => unmarkField(event.target));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const choice = form.elements.buyer.value;
    if (choice !== "guest") await sendCredentials(form, choice === "new", changed);
    showAccount();
  });
  showAccount();
}

export function showAccount() {
  const name = signedInName();
  const choice = form.elements.buyer.value;
  drawAccountLinks();
  byId("signed-in").hidden = name === null;
  byId("buyer-name").textContent = name ?? "";
  byId("choose-buyer").hidden = name !== null;
  byId("credentials").hidden = choice === "guest";
  drawCredentials(choice === "new");
  byId("email-field").hidden = name !== null;
  // show the form of the order only after a sign-in or the choice to be a guest: a sign-in changes
  // the cart
  byId("order").hidden = name === null && choice !== "guest";
}
