// How the station is: what is wrong first, then whether the line has changed, and what it takes and gives.

import { get, isLeft, part } from "./api.js";
import { el, facts, fill, heading, notice, quoted } from "./dom.js";
import { failure } from "./dialog.js";
import { poll } from "./poll.js";
import { station } from "./station.js";
import { ago, bytes, dayAndTime, milliseconds, number, percent, t, tOr } from "./texts.js";

const DRIFT_MS = 60_000;
const EVENTS_MS = 10_000;
const EVENTS = 50;

/** Show the view, until the signal ends it. */
export function show(main, { signal }) {
  const state = el("div", { class: "health-state" });
  const more = el("div", { class: "health-grid" });
  const drift = el("div", {}, el("p", { class: "faint" }, t("loading")));
  const events = el("div", {}, el("p", { class: "faint" }, t("loading")));
  fill(
    main,
    heading(t("health.title")),
    state,
    card(t("health.drift"), el("p", { class: "faint" }, t("health.drift_text")), drift),
    more,
    card(t("health.events"), events),
  );
  const tell = () => showState(state, more);
  station.addEventListener("change", tell, { signal });
  tell();
  poll(() => showDrift(drift, signal), DRIFT_MS, signal);
  poll(() => showEvents(events, signal), EVENTS_MS, signal);
}

function showState(state, more) {
  const { health, unreachable } = station;
  if (unreachable) fill(state, notice("error", unreachable));
  else if (health === null) fill(state, el("p", { class: "faint" }, t("loading")));
  else fill(state, problems(health), tiles(health));
  if (health !== null) fill(more, sourceList(health), sinkList(health), storage(health), about(health));
}

function problems(health) {
  if (!health.problems.length) return notice("good", t("health.fine"));
  const list = el("ul", { class: "notes" }, health.problems.map((problem) => quoted(problem, "li")));
  return notice("error", t("health.problems"), list);
}

function tiles(health) {
  const latency = ["p50", "p95", "p99"].map((share) => {
    const value = health.latency_ms[share];
    return tile(value === undefined ? "–" : milliseconds(value), t(`health.${share}`));
  });
  return el(
    "ul",
    { class: "tiles" },
    tile(number(health.inspections), t("health.inspections")),
    tile(number(health.waiting), t("health.waiting")),
    latency,
    tile(number(health.products), t("health.products")),
  );
}

function tile(value, text) {
  return el("li", {}, el("b", {}, value), text);
}

function card(title, ...content) {
  return el("section", { class: "card" }, el("h2", {}, title), content);
}

function storage(health) {
  const { keep, bytes: used, quota } = health.pictures;
  const meter = el("meter", { min: "0", max: String(quota), value: String(used), "aria-label": t("health.pictures") });
  return card(
    t("health.storage"),
    el("p", {}, t("health.quota", { used: bytes(used), quota: bytes(quota), share: percent(used / quota, 0) })),
    meter,
    el("p", { class: "faint" }, t(`keep.${keep}`)),
    facts(Object.entries(health.disk_free).map(([what, left]) => [tOr(`disk.${what}`, what), t("health.free", { bytes: bytes(left) })])),
  );
}

function sourceList(health) {
  const entries = health.sources.map((one) =>
    entry(one.name, !one.error && one.running, t(one.running ? "health.running" : "health.stopped"), t("health.seen", { n: number(one.seen) }), one.error),
  );
  return card(t("health.sources"), entries.length ? el("ul", { class: "rows" }, entries) : el("p", { class: "faint" }, t("health.no_sources")));
}

function sinkList(health) {
  const entries = health.sinks.map((one) =>
    entry(one.name, !one.error && one.connected, t(one.connected ? "health.connected" : "health.disconnected"), t("health.backlog", { n: number(one.waiting) }), one.error),
  );
  return card(t("health.sinks"), entries.length ? el("ul", { class: "rows" }, entries) : el("p", { class: "faint" }, t("health.no_sinks")));
}

function entry(name, isWell, state, count, error) {
  return el(
    "li",
    {},
    el("span", { class: "row-text" }, el("b", {}, name), el("span", { class: "faint" }, count), error ? quoted(error, "span") : null),
    mark(isWell ? "well" : "unwell", state),
  );
}

function mark(kind, text) {
  return el("span", { class: `mark ${kind}` }, text);
}

function about(health) {
  const up = (station.now() - Date.parse(health.started)) / 1000;
  return card(
    t("health.about"),
    facts([
      [t("station"), health.station],
      [t("health.version"), health.version],
      [t("health.started"), `${dayAndTime(health.started)} (${ago(up)})`],
      [t("health.now"), dayAndTime(health.now)],
    ]),
  );
}

async function showDrift(place, signal) {
  try {
    const products = await get("/api/products", { signal });
    const since = station.health?.started;
    const rows = [];
    // A fitted baseline does not know what its good images looked like.
    for (const { name } of products.filter((one) => one.baseline === null)) {
      const counts = await get("/api/counts", { query: { product: name, since }, signal });
      // One that nothing was inspected with is not loaded only to say so.
      if (Object.values(counts).some((n) => n > 0)) rows.push(driftRow(name, await get(`/api/products/${part(name)}/drift`, { signal })));
    }
    fill(place, rows.length ? el("ul", { class: "rows" }, rows) : el("p", { class: "faint" }, t("drift.none")));
  } catch (error) {
    if (!isLeft(error)) fill(place, failure(error));
    throw error;
  }
}

function driftRow(name, drift) {
  const text = (...words) => el("span", { class: "row-text" }, el("b", {}, name), words);
  const n = number(drift.images);
  if (drift.status === "changed") {
    const words = [el("span", {}, t(`drift.kind.${drift.kind}`)), quoted(drift.message, "span")];
    return el("li", {}, text(words), mark("unwell", t("drift.changed")));
  }
  if (drift.status === "steady") return el("li", {}, text(t("drift.steady", { n })), mark("well", t("drift.ok")));
  return el("li", {}, text(t("drift.few", { n })), mark("open", t("drift.wait")));
}

async function showEvents(place, signal) {
  try {
    const events = await get("/api/events", { query: { limit: EVENTS }, signal });
    const rows = events.map((one) =>
      el("li", {}, el("time", {}, dayAndTime(one.time)), el("b", {}, tOr(`event.${one.kind}`, one.kind)), quoted(one.text, "span")),
    );
    fill(place, rows.length ? el("ol", { class: "events" }, rows) : el("p", { class: "faint" }, t("health.no_events")));
  } catch (error) {
    if (!isLeft(error)) fill(place, failure(error));
    throw error;
  }
}
