/**
 * Return the query of a URL. An array repeats its parameter; an object has one parameter for each
 * member: `{ option: { "option.size": ["M", "L"] } }` is `option.size=M&option.size=L`.
 */
export function serializeQuery(query: Readonly<Record<string, unknown>>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) append(search, name, value);
  return search.toString();
}

function append(search: URLSearchParams, name: string, value: unknown): void {
  if (value === undefined || value === null) return;
  if (Array.isArray(value)) {
    for (const each of value) append(search, name, each);
  } else if (typeof value === "object") {
    for (const [member, each] of Object.entries(value)) append(search, member, each);
  } else {
    search.append(name, String(value));
  }
}
