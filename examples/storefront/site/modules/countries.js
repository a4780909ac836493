// The countries of the address form.

const CODES =
  "AT AU BE BG BR CA CH CY CZ DE DK EE ES FI FR GB GR HR HU IE IS IT JP KR LI LT LU LV MT MX NL NO NZ PL PT RO SE SG SI SK US";

/** Return [code, name] by name. A shop that limits its countries has only those. */
export function countries(codesOfShop) {
  const codes = codesOfShop.length > 0 ? codesOfShop : CODES.split(" ");
  return codes.map((code) => [code, countryName(code)]).sort(([, a], [, b]) => a.localeCompare(b));
}

/** Return the name of a country, or the code if the browser knows none. */
export function countryName(code) {
  return new Intl.DisplayNames([document.documentElement.lang], { type: "region" }).of(code);
}
