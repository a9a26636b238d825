// Elements. What comes from outside is only ever set as text or as an attribute, never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: functions are listeners (`onclick`), `true` is a bare attribute, null and false are left out. */
export function el(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...kept(children));
  return node;
}

/** Replace what is in an element. */
export function fill(node, ...children) {
  node.replaceChildren(...kept(children));
  return node;
}

function kept(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** A button; `kind` is "", "primary", "danger" or "quiet". */
export function button(text, onclick, kind = "", attributes = {}) {
  return el("button", { type: "button", class: `button ${kind}`, onclick, ...attributes }, text);
}

/** A link that looks like a button. */
export function linkButton(text, href, attributes = {}) {
  return el("a", { class: "button", href, ...attributes }, text);
}

/** A list of terms and what is said of them; pairs without a value are left out. */
export function facts(pairs) {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, given.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

/** Words of the station itself, which are English. */
export function quoted(text, tag = "p") {
  return el(tag, { class: "words", lang: "en" }, text);
}

/** A message in a box: "info", "good", "warning" or "error". */
export function notice(kind, title, ...more) {
  return el("div", { class: `notice ${kind}` }, title ? el("p", { class: "notice-title" }, title) : null, more);
}

/** The main heading of a view, which gets the focus when the view opens. */
export function heading(text, attributes = {}) {
  return el("h1", { tabindex: "-1", ...attributes }, text);
}
