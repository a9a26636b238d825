// What was inspected, the latest first, with filters and as a file to keep.

import { address, get, isLeft, part } from "./api.js";
import { failure } from "./dialog.js";
import { button, el, fill, heading, linkButton } from "./dom.js";
import { detail } from "./detail.js";
import { productChoice, productNames } from "./products.js";
import { dayAndTime, t, tn } from "./texts.js";
import { badge, correctionChip, severityText, verdictWord, VERDICTS } from "./verdict.js";
import { pictureAddress } from "./viewer.js";

const AT_ONCE = 40;
// The list as it was left, so that the way back from a record leads to it, and its neighbors are known.
let left = null;

/** Show the view; with an id in the path, that record. */
export function show(main, { signal, path, query }) {
  if (path.length) {
    detail(main, path[0], left, signal);
    return;
  }
  const list = new RecordList(filtersOf(query));
  left = list;
  list.show(main, signal);
}

function filtersOf(query) {
  return {
    product: query.get("product") ?? "",
    verdict: query.getAll("verdict").filter((one) => VERDICTS.includes(one)),
    from: query.get("from") ?? "",
    to: query.get("to") ?? "",
  };
}

/** Midnight of a day here, `days` later. */
function midnight(day, days = 0) {
  const [year, month, date] = day.split("-").map(Number);
  const moment = new Date(year, month - 1, date + days);
  return Number.isNaN(moment.getTime()) ? "" : moment.toISOString();
}

/** Records that fit the filters, as far as they were loaded. */
export class RecordList {
  /** Those that were loaded, the latest first. */
  records = [];
  #filters;
  #next = null;
  // How often it was begun anew: what belongs to an earlier one comes too late.
  #round = 0;
  #exports = el("div", { class: "actions" });
  #rows = el("ol", { class: "records" });
  #more = el("div", { class: "actions" });

  constructor(filters) {
    this.#filters = filters;
  }

  /** The address of the list. */
  get place() {
    return address("#/history", this.#filters);
  }

  get #query() {
    const { product, verdict, from, to } = this.#filters;
    return { product, verdict, since: from && midnight(from), until: to && midnight(to, 1) };
  }

  /** The record before or after one, loading further ones where needed; null for none. */
  async neighbor(id, step, signal) {
    const at = this.records.findIndex((one) => one.id === id);
    if (at < 0 || at + step < 0) return null;
    if (at + step >= this.records.length && this.#next !== null) await this.#load(signal);
    return this.records[at + step] ?? null;
  }

  /** Show it. */
  show(main, signal) {
    const filters = el("form", { class: "filters", "aria-label": t("history.filters") });
    filters.addEventListener("submit", (event) => event.preventDefault());
    fill(main, heading(t("history.title")), filters, this.#exports, this.#rows, this.#more);
    this.#showFilters(filters, signal);
    this.#rows.addEventListener("keydown", moveAmongRows);
    this.#begin(signal);
  }

  async #showFilters(place, signal) {
    const names = await productNames(signal).catch(() => []);
    const change = (changed) => this.#change(changed, signal);
    const verdicts = VERDICTS.map((verdict) => {
      const box = el("input", { type: "checkbox", checked: this.#filters.verdict.includes(verdict) });
      box.addEventListener("change", () => {
        const others = this.#filters.verdict.filter((one) => one !== verdict);
        change({ verdict: box.checked ? [...others, verdict] : others });
      });
      return el("label", { class: "check" }, box, el("span", {}, verdictWord(verdict)));
    });
    fill(
      place,
      productChoice(names, this.#filters.product, t("history.any_product"), (product) => change({ product })),
      this.#day("from", t("history.from"), change),
      this.#day("to", t("history.to"), change),
      el("fieldset", {}, el("legend", {}, t("history.verdicts")), verdicts),
    );
  }

  #day(name, text, change) {
    const input = el("input", { type: "date", value: this.#filters[name] });
    input.addEventListener("change", () => change({ [name]: input.value }));
    return el("label", { class: "field" }, el("span", {}, text), input);
  }

  /** Take other filters; the address says which, so that the way back leads to them. */
  #change(changed, signal) {
    this.#filters = { ...this.#filters, ...changed };
    window.history.replaceState(null, "", this.place);
    this.#begin(signal);
  }

  async #begin(signal) {
    this.records = [];
    this.#next = null;
    this.#round += 1;
    const links = ["csv", "html"].map((format) =>
      linkButton(t(`history.export.${format}`), address("/api/export", { format, ...this.#query }), { download: true }),
    );
    fill(this.#exports, links);
    fill(this.#rows);
    fill(this.#more, el("p", { class: "faint", role: "status" }, t("loading")));
    try {
      await this.#load(signal);
    } catch (error) {
      if (!isLeft(error)) fill(this.#more, failure(error));
    }
  }

  async #load(signal) {
    const round = this.#round;
    const answer = await get("/api/inspections", { query: { ...this.#query, before: this.#next, limit: AT_ONCE }, signal });
    if (round !== this.#round) return;
    this.#next = answer.next;
    this.records.push(...answer.records);
    this.#rows.append(...answer.records.map(row));
    const count = el("p", { class: "faint", role: "status" }, this.records.length ? tn("history.shown", this.records.length) : t("history.none"));
    const more = this.#next === null ? null : button(t("history.more"), () => this.#loadMore(signal));
    fill(this.#more, count, more);
  }

  async #loadMore(signal) {
    const shown = this.#rows.children.length;
    try {
      await this.#load(signal);
      this.#rows.children[shown]?.querySelector("a").focus();
    } catch (error) {
      if (!isLeft(error)) this.#more.append(failure(error));
    }
  }
}

function row(record) {
  const picture = el("span", { class: "record-picture" });
  if (record.image && record.verdict !== "unreadable") {
    const image = el("img", { alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.remove());
    image.src = pictureAddress(record, record.overlay ? "overlay" : "image");
    picture.append(image);
  }
  const text = severityText(record);
  return el(
    "li",
    {},
    el(
      "a",
      { href: `#/history/${part(record.id)}` },
      picture,
      badge(record.verdict),
      el("span", { class: "record-severity" }, text === null ? "" : `${t("severity")} ${text}`),
      el("span", { class: "record-name" }, el("b", {}, record.product || t("history.no_product")), " ", record.name),
      el("span", { class: "record-time" }, dayAndTime(record.time)),
      el("span", { class: "record-correction" }, correctionChip(record.correction)),
    ),
  );
}

/** Arrow keys go from row to row. */
function moveAmongRows(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const links = [...event.currentTarget.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  links[Math.min(links.length - 1, Math.max(0, at + step))].focus();
}
