// Draws the facets: a list of checkboxes for each name, and a removable chip for each filter.
import { byId, element } from "./dom.js";
import { currentFilters, facetGroups, removable, replaced, titleOf, withoutValue, withValue } from "./filters.js";

const OPEN_GROUPS = 4;

/** Draw the facets. `apply(filters)` is called when a user changes a filter. */
export function drawFacets(facets, filters, categoryNames, apply) {
  const groups = facetGroups(facets).map((group) => withSelected(group, filters));
  const useful = groups.filter(({ name, values }) => values.length > 1 || filters.has(name));
  const parts = useful.map((group, index) => {
    const isOpen = filters.has(group.name) || index < OPEN_GROUPS || wasOpen(group.name);
    return groupDetails(group, filters, categoryNames, isOpen, apply);
  });
  const focused = document.activeElement?.id;
  byId("facets").replaceChildren(inStockChoice(filters, apply), ...parts);
  if (focused) document.getElementById(focused)?.focus();
}

/** Draw one chip for each filter; a click removes it. */
export function drawChips(filters, categoryNames, apply) {
  const chips = removable(filters).map(([name, value]) => {
    const text = chipText(name, value, categoryNames);
    const remove = () => apply(withoutValue(currentFilters(), name, value));
    return element("li", {}, element("button", { type: "button", class: "chip", click: remove, "aria-label": `Remove ${text}` },
      text, element("span", { "aria-hidden": "true" }, " ×")));
  });
  if (chips.length > 1) chips.push(element("li", {}, clearButton(filters, apply)));
  byId("active-filters").replaceChildren(...chips);
}

function clearButton(filters, apply) {
  const onlySort = replaced(new URLSearchParams(), "sort", filters.get("sort") ?? "");
  return element("button", { type: "button", class: "link", click: () => apply(onlySort) }, "Remove all");
}

// a selected value stays in its list, also if no product has it any more
function withSelected(group, filters) {
  const listed = new Set(group.values.map(({ value }) => value));
  const missing = filters.getAll(group.name).filter((value) => !listed.has(value));
  return { ...group, values: [...group.values, ...missing.map((value) => ({ value, count: 0 }))] };
}

function wasOpen(name) {
  return [...document.querySelectorAll("#facets details[open]")].some((one) => one.dataset.name === name);
}

function groupDetails({ name, title, values }, filters, categoryNames, isOpen, apply) {
  const choices = values.map(({ value, count }) => {
    const text = `${valueText(name, value, categoryNames)}`;
    return choice(name, value, text, count, filters, apply);
  });
  const group = element("div", { role: "group", "aria-label": title }, ...choices);
  return element("details", { open: isOpen, "data-name": name }, element("summary", {}, title), group);
}

function choice(name, value, text, count, filters, apply) {
  const input = element("input", {
    type: "checkbox",
    id: `filter-${encodeURIComponent(`${name}=${value}`)}`,
    checked: filters.has(name, value),
    // the current filters, because a user may change two filters before the list is drawn again
    change: ({ target }) => apply((target.checked ? withValue : withoutValue)(currentFilters(), name, value)),
  });
  const number = count === null ? null : element("span", { class: "facet-count" }, ` (${count})`);
  return element("label", { class: "choice" }, input, " ", element("span", {}, text), number);
}

function inStockChoice(filters, apply) {
  return choice("in_stock", "true", "In stock only", null, filters, apply);
}

function chipText(name, value, categoryNames) {
  if (name === "q") return `“${value}”`;
  if (name === "in_stock") return "In stock only";
  const title = titleOf(name.replace(/^(option|attribute)\./, ""));
  return `${title}: ${valueText(name, value, categoryNames)}`;
}

function valueText(name, value, categoryNames) {
  if (name === "category") return titleOf(categoryNames.get(value) ?? value);
  if (name.startsWith("attribute.") && value === "true") return "yes";
  return name.startsWith("attribute.") && value === "false" ? "no" : value;
}
