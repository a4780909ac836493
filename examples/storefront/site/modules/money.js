// Formats amounts in minor units.

// The exponents of ISO 4217 that are not 2. Browsers use those of CLDR, which differ for some currencies.
const EXPONENTS = new Map([
  ..."BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(" ").map((code) => [code, 0]),
  ..."BHD IQD JOD KWD LYD OMR TND".split(" ").map((code) => [code, 3]),
  ["CLF", 4],
  ["UYW", 4],
]);

/** Format an amount: 1999 EUR is 19.99 euro, 500 JPY is 500 yen. */
export function formatMoney({ amount, currency }) {
  const exponent = EXPONENTS.get(currency) ?? 2;
  const format = new Intl.NumberFormat(document.documentElement.lang, {
    style: "currency",
    currency,
    minimumFractionDigits: exponent,
    maximumFractionDigits: exponent,
  });
  return format.format(amount / 10 ** exponent);
}

/** Format a price range of a family; null is a family without products. */
export function formatRange(range) {
  if (range === null) return "Not available";
  const { currency, lowest, highest } = range;
  const from = formatMoney({ amount: lowest, currency });
  return lowest === highest ? from : `${from} – ${formatMoney({ amount: highest, currency })}`;
}
