// The page for a sign-in, and for a new account.
import { signedInName } from "./buyer.js";
import { showCartCount } from "./cart.js";
import { drawCredentials, sendCredentials } from "./credentials.js";
import { byId, element } from "./dom.js";
import { drawAccountLinks } from "./header.js";
import { clearMessage, showError, unmarkField, unmarkFields } from "./messages.js";
import { takeOverGuest } from "./sign-in.js";

// pages of this site only, so that a link to this page cannot lead to another one
const OWN_PAGE = /^[a-z-]+\.html(\?.*)?$/;
const form = byId("account");
const isNew = () => form.elements.buyer.value === "new";

for (const choice of form.elements.buyer) choice.addEventListener("change", switchForm);
form.addEventListener("input", (event) => unmarkField(event.target));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  return sendCredentials(form, isNew(), () => location.replace(nextPage()));
});
// without its handler, the browser itself would send the form, and the input would be lost
byId("sign-in").disabled = false;
drawAccountLinks();
drawCredentials(isNew());
void showCartCount();
await showSignedIn();

function switchForm() {
  clearMessage();
  unmarkFields(form);
  drawCredentials(isNew());
}

/** If a user is signed in, say so, and take over the guest's data, which an error may have prevented before. */
async function showSignedIn() {
  const name = signedInName();
  if (name === null) return;
  form.hidden = true;
  const next = element("a", { href: nextPage() }, "Continue");
  byId("message").replaceChildren(element("p", { class: "empty" }, `You are signed in as ${name}. `, next));
  await takeOverGuest().catch(showError);
}

function nextPage() {
  const next = new URLSearchParams(location.search).get("next") ?? "";
  return OWN_PAGE.test(next) && !next.startsWith("sign-in") ? next : "orders.html";
}
