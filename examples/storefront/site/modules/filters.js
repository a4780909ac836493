// The filters of the list. They are the query of the page's address, with the names of the API.

const GROUPS = ["category", "tag"];
const GROUP_PREFIXES = ["option.", "attribute."];
const SINGLE = ["q", "sort"];

/** Return the parameters of the address that are filters, as URLSearchParams. */
export function currentFilters() {
  const filters = new URLSearchParams();
  for (const [name, value] of new URLSearchParams(location.search)) {
    const isKnown = SINGLE.includes(name) || name === "in_stock" || isGroup(name);
    if (isKnown && value !== "") filters.append(name, value);
  }
  return filters;
}

/** Return the filters as a query of the API: lists for groups, one value for other parameters. */
export function apiQuery(filters) {
  const query = {};
  for (const name of new Set(filters.keys())) {
    query[name] = isGroup(name) ? filters.getAll(name) : filters.get(name);
  }
  return query;
}

/** Return the filters with the value. */
export function withValue(filters, name, value) {
  const changed = withoutValue(filters, name, value);
  changed.append(name, value);
  return changed;
}

/** Return the filters without the value. */
export function withoutValue(filters, name, value) {
  const changed = new URLSearchParams(filters);
  changed.delete(name, value);
  return changed;
}

/** Return the filters with one value of the name; an empty value removes the name. */
export function replaced(filters, name, value) {
  const changed = new URLSearchParams(filters);
  changed.delete(name);
  if (value !== "") changed.append(name, value);
  return changed;
}

/** Return [name, value] of each filter that a user can remove. */
export function removable(filters) {
  return [...filters].filter(([name]) => name !== "sort");
}

/** Return the groups of a `facets` object as { name, title, values }, in the order of display. */
export function facetGroups(facets) {
  const groups = [{ name: "category", title: "Category", values: facets.category ?? [] }];
  for (const [option, values] of Object.entries(facets.options ?? {})) {
    groups.push({ name: `option.${option}`, title: titleOf(option), values });
  }
  for (const [attribute, values] of Object.entries(facets.attributes ?? {})) {
    groups.push({ name: `attribute.${attribute}`, title: titleOf(attribute), values });
  }
  groups.push({ name: "tag", title: "Tag", values: facets.tag ?? [] });
  return groups;
}

/** Return a title: "dishwasher_safe" is "Dishwasher safe". */
export function titleOf(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function isGroup(name) {
  return GROUPS.includes(name) || GROUP_PREFIXES.some((prefix) => name.startsWith(prefix));
}
