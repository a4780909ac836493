// The account in the header of all pages: the name of the user, and the sign-in or sign-out.
import { signedInName, signOut } from "./buyer.js";
import { byId, element, pageUrl } from "./dom.js";

/** Draw the account. Call this again after each sign-in. */
export function drawAccountLinks() {
  const name = signedInName();
  byId("account-links").replaceChildren(...(name === null ? [signInLink()] : [
    element("span", { class: "account-name", title: name }, element("span", { class: "visually-hidden" }, "Signed in as "), name),
    element("button", { type: "button", class: "link", click: leave }, "Sign out"),
  ]));
}

function signInLink() {
  const page = location.pathname.split("/").pop() || "index.html";
  if (page === "sign-in.html") return element("a", { href: page, "aria-current": "page" }, "Sign in");
  return element("a", { href: pageUrl("sign-in.html", { next: page + location.search }) }, "Sign in");
}

// the tokens are deleted also if the API cannot be reached
async function leave() {
  await signOut().catch(() => null);
  location.reload();
}
