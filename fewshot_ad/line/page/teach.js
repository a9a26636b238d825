// Teaching a product from photographs of good parts, and the products that there are.

import { get, isLeft, part, send } from "./api.js";
import { ask, failure } from "./dialog.js";
import { button, el, fill, heading, linkButton, notice } from "./dom.js";
import { follow, jobUnderWay } from "./job.js";
import { acceptDrops, Photographs } from "./photographs.js";
import { productSheet } from "./product.js";
import { productList, productNames } from "./products.js";
import { sources } from "./sources.js";
import { t, tn } from "./texts.js";

// Below the first, nothing can be taught; from the second on, the limits are known better.
const LEAST = 2;
const ENOUGH = 4;
// What was collected when the view was left.
const draft = { name: "", files: [] };

/** Show the view; with a name in the path, the sheet of that product. */
export function show(main, { signal, path }) {
  if (path.length) showSheet(main, path[0], signal);
  else new TeachView(main, signal);
}

async function showSheet(main, name, signal) {
  const place = el("div", {}, el("p", { class: "faint" }, t("loading")));
  fill(main, linkButton(t("teach.back"), "#/teach", { class: "button quiet back" }), heading(name), place);
  try {
    const product = await get(`/api/products/${part(name)}`, { signal });
    fill(place, productSheet(product, signal, () => showSheet(main, name, signal)));
  } catch (error) {
    if (!isLeft(error)) fill(place, failure(error));
  }
}

class TeachView {
  #signal;
  #name = el("input", { type: "text", required: true, maxlength: "200", autocomplete: "off", placeholder: t("teach.name_example") });
  #photographs = new Photographs(() => this.#tellCount());
  #count = el("p", { role: "status" });
  #start = button(t("teach.start"), () => this.#teach(), "primary big", { type: "submit" });
  #options = new Options();
  #form;
  #outcome = el("div", { class: "outcome" });
  #showList;

  constructor(main, signal) {
    this.#signal = signal;
    const drop = el(
      "div",
      { class: "drop" },
      el("p", {}, t("teach.drop")),
      sources({ onFiles: (files) => this.#photographs.add(files), takesMany: true, signal }),
    );
    acceptDrops(drop, (files) => this.#photographs.add(files));
    this.#form = el(
      "form",
      { class: "teach-form", novalidate: true },
      el("label", { class: "field" }, el("span", {}, t("teach.name")), this.#name),
      el("h2", {}, t("teach.photographs")),
      el("p", { class: "faint" }, t("teach.advice")),
      drop,
      this.#count,
      this.#photographs.element,
      this.#options.element,
      this.#start,
    );
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    const list = el("aside", { class: "products", "aria-label": t("products.label") });
    fill(main, heading(t("teach.title")), el("div", { class: "teach-grid" }, el("div", {}, this.#form, this.#outcome), list));
    this.#showList = productList(list, signal);
    this.#name.value = draft.name;
    this.#photographs.add(draft.files);
    signal.addEventListener("abort", () => this.#keepDraft());
    this.#resume();
  }

  #keepDraft() {
    draft.name = this.#name.value;
    draft.files = [...this.#photographs.files];
    this.#photographs.clear();
  }

  #tellCount() {
    const n = this.#photographs.files.length;
    const advice = n === 0 ? "" : n < LEAST ? t("teach.too_few") : n < ENOUGH ? t("teach.few") : "";
    this.#count.textContent = n === 0 ? t("teach.none") : `${tn("photographs", n)} ${advice}`;
  }

  /** Show the work that was begun before the page was opened, or on another screen. */
  async #resume() {
    const job = await jobUnderWay(this.#signal).catch(() => null);
    if (job) await this.#follow(job);
  }

  async #teach() {
    const name = this.#name.value.trim();
    if (!name) return this.#refuse(t("teach.no_name"), this.#name);
    if (this.#photographs.files.length < LEAST) return this.#refuse(t("teach.too_few"), this.#form.querySelector("input[type=file]"));
    this.#start.disabled = true;
    try {
      const names = await productNames(this.#signal);
      const isThere = names.some((one) => one.toLowerCase() === name.toLowerCase());
      if (isThere && !(await ask(t("teach.replace_title", { name }), el("p", {}, t("teach.replace_text")), t("teach.replace"), "danger"))) return;
      fill(this.#outcome, el("p", { class: "faint", role: "status" }, t("teach.sending")));
      const job = await send(`/api/products/${part(name)}`, this.#sent(isThere), { signal: this.#signal });
      await this.#follow(job);
    } catch (error) {
      if (!isLeft(error)) fill(this.#outcome, failure(error, t("teach.refused")));
    } finally {
      this.#start.disabled = false;
    }
  }

  #refuse(text, field) {
    fill(this.#outcome, notice("warning", text));
    field.focus();
  }

  #sent(isThere) {
    const form = new FormData();
    for (const file of this.#photographs.files) form.append("images", file, file.name);
    form.append("options", JSON.stringify(this.#options.chosen()));
    form.append("replace", String(isThere));
    return form;
  }

  async #follow(job) {
    this.#form.hidden = true;
    const ended = await follow(job, this.#outcome, this.#signal);
    if (ended === null) return;
    this.#showList();
    if (ended.state === "done") this.#showResult(ended.result);
    else this.#form.hidden = false;
  }

  #showResult(product) {
    this.#photographs.clear();
    this.#name.value = "";
    const title = el("h2", { tabindex: "-1" }, t("teach.done", { name: product.name }));
    const another = button(t("teach.another"), () => {
      fill(this.#outcome);
      this.#form.hidden = false;
      this.#name.focus();
    });
    fill(this.#outcome, title, productSheet(product, this.#signal, this.#showList), another);
    title.focus();
  }
}

/** What may be chosen besides, as `Inspector.from_support` names it. */
class Options {
  #preset = el("select", {}, ["balanced", "fast", "accurate"].map((name) => el("option", { value: name }, t(`preset.${name}`))));
  #parts = el("input", { type: "checkbox" });
  #expect = el("input", { type: "number", min: "1", max: "1000", step: "1", inputmode: "numeric" });
  #register = el("input", { type: "checkbox" });
  #defect = el("input", { type: "number", min: "0.1", max: "50", step: "0.1", inputmode: "decimal", placeholder: "2" });

  constructor() {
    const expect = el("label", { class: "field", hidden: true }, el("span", {}, t("option.expect")), this.#expect);
    this.#parts.addEventListener("change", () => {
      // Parts that are cut out are turned anyway.
      expect.hidden = !this.#parts.checked;
      this.#register.disabled = this.#parts.checked;
    });
    this.element = el(
      "details",
      { class: "more" },
      el("summary", {}, t("teach.more")),
      el("label", { class: "field" }, el("span", {}, t("option.preset")), this.#preset),
      el("label", { class: "check" }, this.#parts, el("span", {}, t("option.parts"))),
      expect,
      el("label", { class: "check" }, this.#register, el("span", {}, t("option.register"))),
      el("label", { class: "field" }, el("span", {}, t("option.defect")), this.#defect),
    );
  }

  /** Only what is not as usual. */
  chosen() {
    const chosen = {};
    if (this.#preset.value !== "balanced") chosen.preset = this.#preset.value;
    if (this.#parts.checked) chosen.parts = "auto";
    if (this.#parts.checked && this.#expect.value) chosen.expect = Number(this.#expect.value);
    if (this.#register.checked && !this.#parts.checked) chosen.register = true;
    if (this.#defect.value) chosen.min_defect = Number(this.#defect.value) / 100;
    return chosen;
  }
}
