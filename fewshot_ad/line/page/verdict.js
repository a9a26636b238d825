// A verdict as people see it: a word, a sign of its own shape, and a color; and how far the part is from the limit.

import { el, svg } from "./dom.js";
import { number, severity, t } from "./texts.js";

export const VERDICTS = ["good", "review", "anomalous", "not_inspectable", "unreadable"];

// Outline and inside of each sign, in a square of 48.
const SIGNS = {
  good: ["M24 4a20 20 0 1 0 0 40 20 20 0 0 0 0-40z", "m14 25 7 7 13-15"],
  review: ["M24 5 45 43H3z", "M24 18v12M24 36.5v.5"],
  anomalous: ["M16 4h16l12 12v16L32 44H16L4 32V16z", "m16 16 16 16M32 16 16 32"],
  not_inspectable: ["M24 3 45 24 24 45 3 24z", "M18 20c0-8 12-8 12 0 0 5-6 5-6 9M24 34.5v.5"],
  unreadable: ["M10 4h19l10 10v30H10z", "m17 20 14 14M31 20 17 34"],
};

/** The word of a verdict. */
export function verdictWord(verdict) {
  return t(`verdict.${verdict}`);
}

/** The sign of a verdict; words beside it say the same. */
export function sign(verdict) {
  const [outline, inside] = SIGNS[verdict];
  return svg(
    "svg",
    { class: "sign", viewBox: "0 0 48 48", "aria-hidden": "true" },
    svg("path", { class: "sign-outline", d: outline }),
    svg("path", { class: "sign-inside", d: inside }),
  );
}

/** A verdict in a line of text. */
export function badge(verdict) {
  return el("span", { class: `badge ${verdict}` }, sign(verdict), el("span", {}, verdictWord(verdict)));
}

/** The severity of a record as text; null where there is none. */
export function severityText(record) {
  if (record.severity === null || record.verdict === "not_inspectable") return null;
  return severity(record.severity, record.verdict === "anomalous");
}

/** How far a part is from the limit, as a bar: the limit is in its middle, and twice the limit or more at its end. */
export function gauge(record) {
  if (severityText(record) === null) return null;
  const fill = el("div", { class: "gauge-fill" });
  fill.style.width = `${Math.min(100, 50 * record.severity)}%`;
  const track = el("div", { class: `gauge-track ${record.verdict}` }, fill, el("div", { class: "gauge-limit" }));
  const words = el("div", { class: "gauge-words" }, el("span", {}, "0"), el("span", {}, t("severity.limit")), el("span", {}, "2+"));
  return el("div", { class: "gauge" }, el("div", {}, t("severity"), " ", el("b", {}, severityText(record))), track, words);
}

/** Of an image of several parts, how many of them are good; null of other images. */
export function partsText(record) {
  const parts = record.inspection?.parts;
  if (!parts) return null;
  const good = parts.filter((one) => one.verdict === "good").length;
  const expected = record.inspection.count?.expected;
  const text = t("parts.good", { good: number(good), found: number(parts.length) });
  return expected ? `${text} ${t("parts.expected", { expected: number(expected) })}` : text;
}

/** What was said of a verdict afterwards; null for nothing. */
export function correctionChip(correction) {
  if (!correction) return null;
  return el("span", { class: `chip ${correction}` }, t(`corrected.${correction}`));
}
