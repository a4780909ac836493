// The view of a family: its options choose the product.
import { hasCode, read } from "./api.js";
import { addUnits, MAX_QUANTITY, showCartCount } from "./cart.js";
import { byId, element, pageUrl } from "./dom.js";
import { titleOf } from "./filters.js";
import { drawAccountLinks } from "./header.js";
import { apiImages, productImage } from "./images.js";
import { clearMessage, showError, showErrorText } from "./messages.js";
import { formatMoney } from "./money.js";
import { areDistinct, chosenProduct, initialProduct, isAvailable } from "./options.js";

const parameters = new URLSearchParams(location.search);
drawAccountLinks();
void showCartCount();
await load();

async function load() {
  try {
    const family = await read("/families/{slug}", { path: { slug: parameters.get("slug") || "-" } });
    clearMessage();
    if (family.products.length === 0) return showErrorText("This product is not sold any more.");
    draw(family, initialProduct(family.products, parameters.get("sku")));
  } catch (error) {
    if (hasCode(error, "inventory.family_not_found")) showNotFound();
    else showError(error);
  }
}

function showNotFound() {
  const link = element("a", { href: "index.html" }, "See all products");
  byId("message").replaceChildren(element("h1", {}, "There is no such product"), element("p", {}, link));
}

function draw(family, product) {
  document.title = `${product.name} · Demo storefront`;
  const form = element("form", { class: "buy" }, ...optionFields(family, product), ...buyFields(product));
  form.addEventListener("submit", (event) => add(event, product));
  byId("product").replaceChildren(
    gallery(product, family),
    element("div", { class: "details" },
      element("h1", {}, product.name),
      facts(product),
      form,
      element("div", { id: "added", role: "status" }),
      element("p", { class: "description" }, product.description || family.description),
      attributeTable(product.attributes),
      element("p", { class: "hint" }, `Article ${product.sku}`),
    ),
  );
  byId("product").hidden = false;
}

function facts(product) {
  const price = element("p", { class: "price large" }, formatMoney(product.price));
  if (product.compare_at !== null && product.compare_at > product.price.amount) {
    const before = formatMoney({ amount: product.compare_at, currency: product.price.currency });
    price.append(" ", element("s", { "aria-label": `before ${before}` }, before));
  }
  return element("div", { "aria-live": "polite" }, price, availability(product));
}

function availability(product) {
  if (!isAvailable(product)) return element("p", { class: "sold-out" }, "Sold out");
  const few = product.available <= 5 && product.track_inventory;
  return element("p", { class: "in-stock" }, few ? `Only ${product.available} left` : "In stock");
}

function optionFields(family, product) {
  const { products } = family;
  if (products.length === 1) return [];
  const options = family.options.filter(({ values }) => values.length > 1);
  if (!areDistinct(products, options)) return [productField(family, product)];
  return options.map(({ name, values }) => {
    const choices = values.flatMap((value) => {
      const target = chosenProduct(products, product, name, value);
      return target === undefined ? [] : [optionChoice(name, value, product, target, family)];
    });
    return element("fieldset", { class: "options" }, element("legend", {}, titleOf(name)), ...choices);
  });
}

function optionChoice(name, value, product, target, family) {
  const id = `option-${encodeURIComponent(`${name}=${value}`)}`;
  const input = element("input", {
    type: "radio",
    name: `option-${name}`,
    id,
    value,
    checked: product.options[name] === value,
    change: () => choose(family, target, id),
  });
  const text = isAvailable(target) ? value : `${value} (sold out)`;
  return element("label", { class: "option" }, input, element("span", {}, text));
}

// for products that their options do not distinguish
function productField(family, product) {
  const select = element("select", { id: "version" }, ...family.products.map((one) =>
    element("option", { value: one.sku, selected: one.sku === product.sku }, one.name)));
  select.addEventListener("change", () =>
    choose(family, initialProduct(family.products, select.value), "version"));
  return element("div", { class: "field" }, element("label", { for: "version" }, "Version"), select);
}

function choose(family, product, focusedId) {
  history.replaceState(null, "", pageUrl("product.html", { slug: family.slug, sku: product.sku }));
  draw(family, product);
  byId(focusedId).focus();
}

function buyFields(product) {
  if (!isAvailable(product)) return [];
  const max = Math.min(product.available, MAX_QUANTITY);
  return [
    element("div", { class: "field quantity" },
      element("label", { for: "quantity" }, "Quantity"),
      element("input", { id: "quantity", type: "number", min: 1, max, value: 1, required: true, inputmode: "numeric" }),
    ),
    element("button", { type: "submit", class: "primary wide" }, "Add to cart"),
  ];
}

async function add(event, product) {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  if (button.disabled) return;
  button.disabled = true;
  try {
    await addUnits(product.product_id, byId("quantity").valueAsNumber);
    byId("added").replaceChildren(
      element("p", { class: "notice" }, `${product.name} is in the cart. `, element("a", { href: "cart.html" }, "Go to the cart")));
  } catch (error) {
    showError(error, byId("added"));
  } finally {
    button.disabled = false;
  }
}

function gallery(product, family) {
  const images = apiImages(product.images.length > 0 ? product.images : family.images);
  const main = productImage(images, product.name);
  if (images.length < 2) return element("div", { class: "gallery" }, main);
  const thumbnails = images.map((image, index) =>
    element("button", { type: "button", click: () => main.setAttribute("src", image), "aria-label": `Show picture ${index + 1}` },
      element("img", { src: image, alt: "", loading: "lazy" })));
  return element("div", { class: "gallery" }, main, element("div", { class: "thumbnails" }, ...thumbnails));
}

function attributeTable(attributes) {
  const rows = Object.entries(attributes).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, titleOf(name)), element("td", {}, attributeText(value))));
  return rows.length === 0 ? null : element("table", { class: "attributes" }, element("tbody", {}, ...rows));
}

function attributeText(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}
