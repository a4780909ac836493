// The view of the list: search, facets, and the families as cards.
import { read, shop } from "./api.js";
import { showCartCount } from "./cart.js";
import { byId, element, pageUrl } from "./dom.js";
import { drawChips, drawFacets } from "./facets.js";
import { apiQuery, currentFilters, replaced } from "./filters.js";
import { drawAccountLinks } from "./header.js";
import { productImage } from "./images.js";
import { clearMessage, showError } from "./messages.js";
import { formatRange } from "./money.js";
import { items } from "../markethall-client.js";

const PAGE_SIZE = 24;
const FACETS = "category,options,attributes,tag";
// a response that arrives after the filters have changed again is ignored
let latestLoad = 0;
let cursor = null;

const categoryNames = readCategoryNames();
byId("filters").open = matchMedia("(min-width: 50rem)").matches;
byId("search").addEventListener("submit", search);
byId("sort").addEventListener("change", (event) => apply(replaced(currentFilters(), "sort", event.target.value)));
// a choice before this line would be lost
byId("sort").disabled = false;
byId("more").addEventListener("click", showMore);
addEventListener("popstate", load);
drawAccountLinks();
void showCartCount();
await load();

function search(event) {
  event.preventDefault();
  apply(replaced(currentFilters(), "q", byId("q").value.trim()));
}

function apply(filters) {
  history.pushState(null, "", filters.size > 0 ? `?${filters}` : "index.html");
  return load();
}

async function load() {
  const number = (latestLoad += 1);
  const filters = currentFilters();
  // on the first load, keep a text that was entered while the page was loading
  if (number > 1 || byId("q").value === "") byId("q").value = filters.get("q") ?? "";
  byId("sort").value = filters.get("sort") ?? "";
  byId("summary").textContent = "Loading products …";
  byId("products").setAttribute("aria-busy", "true");
  try {
    const [page, names] = await Promise.all([readPage(filters), categoryNames]);
    if (number !== latestLoad) return;
    clearMessage();
    byId("products").replaceChildren();
    drawFacets(page.facets, filters, names, apply);
    drawChips(filters, names, apply);
    drawPage(page);
    drawEmptyState(filters);
  } catch (error) {
    if (number === latestLoad) showFailure(error);
  } finally {
    byId("products").removeAttribute("aria-busy");
  }
}

async function showMore() {
  const number = latestLoad;
  byId("more").disabled = true;
  try {
    const page = await readPage(currentFilters(), cursor);
    if (number !== latestLoad) return;
    const shown = byId("products").children.length;
    drawPage(page);
    byId("products").children[shown]?.querySelector("a").focus();
  } catch (error) {
    showError(error);
  } finally {
    byId("more").disabled = false;
  }
}

/** Read the first page with the facets, which count families, or the page after `from`. */
function readPage(filters, from = null) {
  const part = from === null ? { facets: FACETS } : { cursor: from };
  return read("/families", { query: { ...apiQuery(filters), limit: PAGE_SIZE, ...part } });
}

/** Return the names of categories by their keys; without names the keys are shown. */
async function readCategoryNames() {
  const names = new Map();
  try {
    for await (const { category, name } of items(shop, "/categories", { params: { query: { limit: 100 } } })) {
      names.set(category, name);
    }
  } catch {
    // the list reports a failure of the API itself
  }
  return names;
}

function drawPage(page) {
  byId("products").append(...page.items.map(card));
  cursor = page.next_cursor;
  byId("more").hidden = cursor === null;
  const shown = byId("products").children.length;
  const products = shown === 1 ? "1 product" : `${shown} products`;
  byId("summary").textContent = cursor === null ? products : `The first ${products}`;
}

function card(family) {
  const link = element("a", { href: pageUrl("product.html", { slug: family.slug }) }, family.name);
  return element("li", { class: "card" },
    productImage(family.images, family.name),
    element("h2", {}, link),
    optionsText(family.options),
    element("p", { class: "price" }, formatRange(family.price_range)),
    family.available > 0 ? null : element("p", { class: "sold-out" }, "Sold out"),
  );
}

function optionsText(options) {
  const choices = options.filter(({ values }) => values.length > 1);
  if (choices.length === 0) return null;
  const parts = choices.map(({ name, values }) => `${values.length} × ${name}`);
  return element("p", { class: "hint" }, parts.join(", "));
}

function drawEmptyState(filters) {
  if (byId("products").children.length > 0) return;
  byId("summary").textContent = "No products";
  const isFiltered = [...filters.keys()].some((name) => name !== "sort");
  const advice = isFiltered ? "No product has all of these filters. Remove one, or search for something else."
    : "The catalogue is empty. `markethall demo` adds a few products.";
  byId("message").replaceChildren(element("p", { class: "empty" }, advice));
}

function showFailure(error) {
  byId("summary").textContent = "";
  byId("products").replaceChildren();
  byId("more").hidden = true;
  showError(error, byId("message"), element("button", { type: "button", click: load }, "Try again"));
}
