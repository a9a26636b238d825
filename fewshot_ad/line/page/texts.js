// All words of the page, in two languages, and numbers and times as each writes them.

import { recall, remember } from "./memory.js";

export const LANGUAGES = ["en", "de"];

let texts = {};
let language = "en";

/** Load the words; once, before anything is shown. */
export async function loadTexts() {
  const response = await fetch("/page/texts.json");
  texts = await response.json();
  const wanted = [recall("language"), ...navigator.languages.map((name) => name.slice(0, 2).toLowerCase())];
  setLanguage(wanted.find((name) => LANGUAGES.includes(name)) ?? "en");
}

/** The language in use. */
export function currentLanguage() {
  return language;
}

/** Take another language, for this visit. */
export function setLanguage(name) {
  language = name;
  document.documentElement.lang = name;
}

/** Take another language, for good. */
export function chooseLanguage(name) {
  remember("language", name);
  setLanguage(name);
}

/** The words of a key, with `{name}` replaced. */
export function t(key, values = {}) {
  const text = texts[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The same with a number, of which `KEY.one` and `KEY.other` speak. */
export function tn(key, n, values = {}) {
  const form = new Intl.PluralRules(language).select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n: number(n), ...values });
}

/** The words of a key, or other ones where there are none, for what the station may name one day. */
export function tOr(key, otherwise) {
  return key in texts[language] ? t(key) : otherwise;
}

/** A number with so many digits after the point. */
export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, options).format(value);
}

/** A share as percent. */
export function percent(share, digits) {
  const options = { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, options).format(share);
}

/** Bytes in the unit that suits them. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  const scaled = value / 1000 ** step;
  return `${number(scaled, step > 0 && scaled < 10 ? 1 : 0)} ${units[step]}`;
}

/** Milliseconds. */
export function milliseconds(value) {
  return `${number(value)} ms`;
}

/** A moment's time of day. */
export function clock(moment) {
  return new Intl.DateTimeFormat(language, { timeStyle: "medium", hourCycle: "h23" }).format(new Date(moment));
}

/** A moment's day and time. */
export function dayAndTime(moment) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" }).format(new Date(moment));
}

/** How long ago something was. */
export function ago(seconds) {
  const [value, unit] = seconds < 60 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  return new Intl.RelativeTimeFormat(language).format(-Math.floor(value), unit);
}

/** A severity that never reads as another verdict's: 1.004 of a rejected part is 1.01, as everywhere in the product. */
export function severity(value, isAnomalous) {
  const rounded = Number(value.toFixed(2));
  const keeps = rounded !== 1 || (value === 1 && !isAnomalous);
  return number(keeps ? rounded : isAnomalous ? 1.01 : 0.99, 2);
}
