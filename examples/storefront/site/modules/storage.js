// Values in the storage of the browser, as JSON.

/** Return the stored value, or null if there is none or it is no JSON. */
export function stored(name, storage = localStorage) {
  try {
    return JSON.parse(storage.getItem(name) ?? "null");
  } catch {
    return null;
  }
}

/** Store a value; null removes it. */
export function store(name, value, storage = localStorage) {
  if (value === null) storage.removeItem(name);
  else storage.setItem(name, JSON.stringify(value));
}

/** Run the function while no other tab of this site runs it, if the browser supports such locks. */
export function withLock(name, run) {
  return navigator.locks === undefined ? run() : navigator.locks.request(name, run);
}
