// The last verdict, to be read from afar; what was counted; and photographs to be inspected now.

import { get, isLeft } from "./api.js";
import { correctionPanel } from "./correct.js";
import { failure } from "./dialog.js";
import { button, el, fill, heading, notice, quoted } from "./dom.js";
import { inspect, trigger } from "./inspecting.js";
import { recall, remember } from "./memory.js";
import { poll } from "./poll.js";
import { productChoice, productNames } from "./products.js";
import { sources } from "./sources.js";
import { station } from "./station.js";
import { ago, clock, milliseconds, number, t, tn } from "./texts.js";
import { gauge, partsText, severityText, sign, verdictWord, VERDICTS } from "./verdict.js";
import { viewer } from "./viewer.js";

const EVERY_MS = 700;

/** Show the view, until the signal ends it. */
export function show(main, { signal }) {
  new LiveView(main, signal);
}

class LiveView {
  #signal;
  #product = recall("product") ?? "";
  #shown = null;
  #newest = null;
  #isHeld = false;
  #panel = el("section", { class: "verdict-panel empty", "aria-live": "polite", "aria-atomic": "true" });
  #stale = el("p", { class: "verdict-stale", hidden: true });
  #clock = el("b");
  #age = el("span", { class: "faint" });
  #picture = el("div", { class: "live-picture" });
  #about = el("div", { class: "live-about" });
  #counts = el("ul", { class: "tiles" });
  #work = el("div", { class: "live-work", role: "status" });
  #hold = button(t("live.hold"), () => this.#toggleHold(), "", { "aria-pressed": "false" });
  // It stays in place from record to record, so that the button under a finger does.
  #when = el("p", { class: "live-time", hidden: true }, this.#clock, this.#age, this.#hold);
  #choice = el("div", { class: "live-choice" });
  #ask;

  constructor(main, signal) {
    this.#signal = signal;
    const inspecting = sources({
      onFiles: (files) => this.#inspectAll(files),
      takesMany: true,
      onStationCamera: (name) => this.#inspectOne(() => trigger(name)),
      signal,
    });
    const photographs = el("div", { class: "field" }, el("span", {}, t("live.inspect")), inspecting);
    const counts = el("section", { class: "live-counts" }, el("h2", {}, t("live.counts")), this.#counts);
    const side = el("div", { class: "live-side" }, this.#when, this.#about, counts);
    fill(
      main,
      heading(t("nav.live"), { class: "sr-only" }),
      this.#stale,
      this.#panel,
      el("div", { class: "live-bar" }, this.#choice, photographs),
      this.#work,
      el("div", { class: "live-grid" }, this.#picture, side),
    );
    this.#showNothing();
    this.#offerProducts();
    this.#ask = poll(() => this.#update(), EVERY_MS, signal);
  }

  async #offerProducts() {
    const names = await productNames(this.#signal).catch(() => []);
    const choose = (name) => {
      this.#product = name;
      remember("product", name || null);
      this.#newest = null;
      this.#ask();
    };
    if (!this.#signal.aborted) fill(this.#choice, productChoice(names, this.#product, t("live.any_product"), choose));
  }

  async #update() {
    try {
      const live = await get("/api/live", { signal: this.#signal });
      station.note("");
      const isNew = this.#newest !== (live.record?.id ?? "");
      if (isNew) await this.#take(live);
      this.#tellStale(live.trouble ? t("live.unrecorded") : "");
    } catch (error) {
      if (isLeft(error)) return;
      if (error.status === 0) station.note(error.message);
      this.#tellStale(t("live.stale"));
      throw error;
    } finally {
      this.#tellAge();
    }
  }

  /** Take over what the station says: of one product, it has to be asked for. */
  async #take(live) {
    const product = this.#product;
    const [record, counts] = product ? await this.#ofProduct(live.record) : [live.record, live.counts];
    if (product !== this.#product) return;
    this.#newest = live.record?.id ?? "";
    this.#showCounts(counts);
    if (this.#isHeld && this.#shown) return;
    if (record) this.#showRecord(record);
    else this.#showNothing();
  }

  async #ofProduct(latest) {
    const { started } = station.health ?? (await get("/api/health", { signal: this.#signal }));
    const query = { product: this.#product, since: started };
    const [history, counts] = await Promise.all([
      get("/api/inspections", { query: { ...query, limit: 1 }, signal: this.#signal }),
      get("/api/counts", { query, signal: this.#signal }),
    ]);
    // What could not be told to be of any product may be of this one, and nobody should overlook it.
    return [latest && !latest.product ? latest : history.records[0], counts];
  }

  #showNothing() {
    this.#shown = null;
    this.#when.hidden = true;
    this.#panel.className = "verdict-panel empty";
    fill(this.#panel, el("p", {}, t("live.nothing")));
    fill(this.#picture);
    fill(this.#about);
    this.#showCounts({});
  }

  #showRecord(record) {
    if (record.id === this.#shown?.id) return;
    this.#shown = record;
    const text = severityText(record);
    this.#panel.className = `verdict-panel ${record.verdict}`;
    const figure = text === null ? null : el("p", { class: "verdict-severity" }, el("span", {}, t("severity")), el("b", {}, text));
    const word = el("p", { class: "verdict-word" }, verdictWord(record.verdict));
    fill(this.#panel, el("div", { class: "verdict-line" }, sign(record.verdict), word, figure));
    fill(this.#picture, viewer(record));
    this.#showAbout(record);
  }

  #showAbout(record) {
    this.#when.hidden = false;
    this.#clock.textContent = clock(record.time);
    fill(
      this.#about,
      record.reason ? quoted(record.reason) : null,
      gauge(record),
      el("p", { class: "faint" }, [record.product, record.name, partsText(record), milliseconds(record.milliseconds)].filter(Boolean).join(" · ")),
      correctionPanel(record),
    );
    this.#tellAge();
  }

  #showCounts(counts) {
    const shown = VERDICTS.filter((verdict) => counts[verdict] || verdict === "good" || verdict === "anomalous");
    const total = Object.values(counts).reduce((sum, n) => sum + n, 0);
    fill(
      this.#counts,
      shown.map((verdict) => el("li", { class: verdict }, el("b", {}, number(counts[verdict] ?? 0)), verdictWord(verdict))),
      el("li", {}, el("b", {}, number(total)), t("total")),
    );
  }

  /** Say that what is shown is not the latest; empty if it is. */
  #tellStale(text) {
    this.#stale.textContent = text;
    this.#stale.hidden = text === "" || this.#shown === null;
    this.#panel.classList.toggle("stale", !this.#stale.hidden);
  }

  #tellAge() {
    if (!this.#shown) return;
    const seconds = Math.max(0, (station.now() - Date.parse(this.#shown.time)) / 1000);
    this.#age.textContent = ago(seconds);
  }

  #toggleHold() {
    this.#isHeld = !this.#isHeld;
    this.#hold.textContent = t(this.#isHeld ? "live.go_on" : "live.hold");
    this.#hold.setAttribute("aria-pressed", String(this.#isHeld));
    this.#panel.classList.toggle("held", this.#isHeld);
    this.#newest = null;
    this.#ask();
  }

  async #inspectAll(files) {
    for (const [at, file] of files.entries()) {
      fill(this.#work, el("p", {}, t("live.inspecting", { at: at + 1, all: files.length, name: file.name })));
      if (!(await this.#inspectOne(() => inspect(this.#product, file)))) return;
    }
    fill(this.#work, files.length > 1 ? notice("good", tn("live.inspected", files.length)) : null);
  }

  async #inspectOne(work) {
    try {
      await work();
      this.#ask();
      return true;
    } catch (error) {
      fill(this.#work, failure(error, t("live.no_verdict")));
      return false;
    }
  }
}
