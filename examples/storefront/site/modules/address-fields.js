// The inputs of the shipping address, and of the billing address if it is another one.
import { byId, element } from "./dom.js";

// name, label, autocomplete, maximum length, required
const FIELDS = [
  ["recipient", "Name", "name", 200, true],
  ["line1", "Street and number", "address-line1", 200, true],
  ["line2", "Addition (optional)", "address-line2", 200, false],
  ["postal_code", "Postal code", "postal-code", 20, true],
  ["city", "City", "address-level2", 100, true],
];
const NAMES = [...FIELDS.map(([name]) => name), "country"];

/** The inputs of one address. `kind` is "shipping" or "billing"; `countries` has pairs [code, name]. */
export class AddressFields {
  #kind;
  #countries;

  constructor(kind, countries) {
    this.#kind = kind;
    this.#countries = countries;
  }

  /** Draw the inputs into the element `<kind>-address`. */
  draw() {
    const [recipient, line1, line2, postalCode, city] = FIELDS.map((field) => this.#textField(...field));
    this.#target.replaceChildren(recipient, line1, line2, element("div", { class: "field-row" }, postalCode, city), this.#countryField());
  }

  remove() {
    this.#target.replaceChildren();
  }

  get isDrawn() {
    return this.#target.children.length > 0;
  }

  /** Return the address, or null while required inputs are empty. */
  entered() {
    const inputs = NAMES.map((name) => [name, this.#input(name)]);
    if (inputs.some(([, input]) => input.required && input.value.trim() === "")) return null;
    return Object.fromEntries(inputs.map(([name, input]) => [name, input.value.trim()]).filter(([, value]) => value !== ""));
  }

  /** Write an address into the inputs that are empty. */
  fill(address) {
    for (const name of NAMES) if (this.#input(name).value === "") this.#input(name).value = address?.[name] ?? "";
  }

  get #target() {
    return byId(`${this.#kind}-address`);
  }

  #input(name) {
    return byId(`${this.#kind}-${name}`);
  }

  #attributes(name) {
    return { id: `${this.#kind}-${name}`, "data-pointer": `/${this.#kind}_address/${name}` };
  }

  #textField(name, label, autocomplete, maxlength, required) {
    const input = element("input", {
      ...this.#attributes(name), autocomplete: `${this.#kind} ${autocomplete}`, maxlength, required });
    return this.#labelled(label, input, name === "city" ? "field grow" : "field");
  }

  #countryField() {
    const options = this.#countries.map(([code, name]) => element("option", { value: code }, name));
    const attributes = { ...this.#attributes("country"), autocomplete: `${this.#kind} country`, required: true };
    const choose = element("option", { value: "" }, "Choose …");
    return this.#labelled("Country", element("select", attributes, choose, ...options), "field");
  }

  #labelled(label, input, style) {
    return element("div", { class: style }, element("label", { for: input.id }, label), input);
  }
}

/** Tell whether two addresses have the same fields; absent fields and null are the same. */
export function isSameAddress(one, other) {
  return NAMES.every((name) => (one?.[name] ?? "") === (other?.[name] ?? ""));
}
