// Images of products, or a placeholder.
import { apiUrl } from "./api.js";
import { element, webUrl } from "./dom.js";

const TINTS = 6;

/**
 * Return the first image that the API serves, or a placeholder with the first letter of the name.
 * Images of other hosts are not shown, because these pages send requests only to the API.
 */
export function productImage(images, name) {
  const [source] = apiImages(images);
  if (source === undefined) return placeholder(name);
  return element("img", { src: source, alt: name, class: "picture", loading: "lazy" });
}

/** Return the addresses of the images that the API serves. */
export function apiImages(images) {
  const urls = images.map((image) => webUrl(image, apiUrl));
  return urls.filter((url) => url !== null && new URL(url).origin === new URL(apiUrl).origin);
}

function placeholder(name) {
  const letter = [...name].find((character) => /\p{L}|\p{N}/u.test(character)) ?? "·";
  // the first word is the same for all products of most families, and so is the colour
  const [word] = name.split(/[\s,]/u);
  const tint = [...word].reduce((sum, character) => sum + character.codePointAt(0), 0) % TINTS;
  const attributes = { class: `picture placeholder tint-${tint}`, role: "img", "aria-label": "No picture" };
  return element("div", attributes, element("span", { "aria-hidden": "true" }, letter.toUpperCase()));
}
