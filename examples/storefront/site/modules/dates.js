// Times in the language of the page and the time zone of the browser.
import { element } from "./dom.js";

/** Return the day and the time as an element. */
export function formatTime(at) {
  return timeElement(at, { dateStyle: "medium", timeStyle: "short" });
}

/** Return the day as an element. */
export function formatDay(at) {
  return timeElement(at, { dateStyle: "medium" });
}

function timeElement(at, style) {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, style);
  return element("time", { datetime: at, class: "hint" }, format.format(new Date(at)));
}
