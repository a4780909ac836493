// The view of the cart.
import { cartLines, MAX_QUANTITY, setQuantity, showCartCount } from "./cart.js";
import { readCart, subtotals } from "./cart-contents.js";
import { byId, element, pageUrl } from "./dom.js";
import { productImage } from "./images.js";
import { clearMessage, showError } from "./messages.js";
import { formatMoney } from "./money.js";

showCartCount();
await load();

async function load() {
  try {
    const contents = await readCart();
    clearMessage();
    draw(contents);
  } catch (error) {
    showError(error, byId("message"), element("button", { type: "button", click: load }, "Try again"));
  }
}

function draw(contents) {
  if (contents.length === 0) {
    byId("cart").replaceChildren(element("p", { class: "empty" }, "The cart is empty. ",
      element("a", { href: "index.html" }, "See all products")));
    return;
  }
  const sold = contents.filter(({ product }) => product !== null);
  const isComplete = contents.every(({ line, product }) => product !== null && product.available >= line.quantity);
  byId("cart").replaceChildren(
    element("ul", { class: "lines" }, ...contents.map((content) => cartLine(content, contents))),
    element("div", { class: "total" },
      ...subtotals(sold).map((sum) => element("p", {}, "Subtotal ", element("strong", {}, formatMoney(sum)))),
      element("p", { class: "hint" }, "Shipping is added at the checkout."),
      isComplete ? element("a", { class: "button primary wide", href: "checkout.html" }, "Check out")
        : element("p", { class: "sold-out" }, "Change or remove the marked lines to check out."),
    ),
  );
}

function cartLine({ line, product }, contents) {
  if (product === null) {
    return element("li", { class: "line" }, element("p", { class: "line-name sold-out" }, "A product that is not sold any more"),
      removeButton(line, "the product that is not sold any more", contents));
  }
  const url = pageUrl("product.html", { slug: line.slug, sku: product.sku });
  return element("li", { class: "line" },
    element("div", { class: "line-picture" }, productImage(product.images, product.name)),
    element("div", { class: "line-name" },
      element("a", { href: url }, product.name),
      element("p", { class: "hint" }, `${formatMoney(product.price)} each`),
      stockNote(line, product),
    ),
    quantityField(line, product, contents),
    element("p", { class: "price" }, formatMoney({ ...product.price, amount: product.price.amount * line.quantity })),
    removeButton(line, product.name, contents),
  );
}

function stockNote(line, product) {
  if (product.available >= line.quantity) return null;
  const text = product.available === 0 ? "Sold out" : `Only ${product.available} left`;
  return element("p", { class: "sold-out" }, text);
}

function quantityField(line, product, contents) {
  const id = `quantity-${line.product_id}`;
  const input = element("input", { id, type: "number", min: 1, max: MAX_QUANTITY, value: line.quantity, inputmode: "numeric" });
  input.addEventListener("change", () => {
    const quantity = Math.min(Math.max(Math.trunc(input.valueAsNumber) || 1, 1), MAX_QUANTITY);
    setQuantity(line.product_id, quantity);
    redraw(contents);
    byId(id).focus();
  });
  return element("div", { class: "line-quantity" },
    element("label", { for: id }, "Quantity", element("span", { class: "visually-hidden" }, ` of ${product.name}`)), input);
}

function removeButton(line, name, contents) {
  const remove = () => {
    setQuantity(line.product_id, 0);
    redraw(contents);
    byId("main").focus();
  };
  return element("button", { type: "button", class: "link", click: remove, "aria-label": `Remove ${name}` }, "Remove");
}

// the products are known already
function redraw(contents) {
  const products = new Map(contents.map(({ line, product }) => [line.product_id, product]));
  draw(cartLines().map((line) => ({ line, product: products.get(line.product_id) ?? null })));
}
