// Builds elements. Data becomes text nodes and attribute values only, never HTML.

export const byId = (id) => document.getElementById(id);

/**
 * Create an element. An attribute that is false, null or undefined is left out, true is written
 * without a value, and a function becomes a listener: `{ click: remove }`.
 */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(created, name, value);
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

function setAttribute(target, name, value) {
  if (value === false || value === null || value === undefined) return;
  if (typeof value === "function") target.addEventListener(name, value);
  else target.setAttribute(name, value === true ? "" : String(value));
}

/** Return the address of a page of this site with parameters. */
export function pageUrl(page, parameters) {
  return `${page}?${new URLSearchParams(parameters)}`;
}

/** Return an address of the web, or null for another scheme, such as `javascript:`. */
export function webUrl(text, base) {
  try {
    const url = new URL(text, base);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
