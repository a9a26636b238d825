// What is known of a product: what it finds, what it promises, what was noticed; its changes; and trying it.

import { part } from "./api.js";
import { undoLast } from "./correct.js";
import { failure } from "./dialog.js";
import { button, el, facts, fill, notice, quoted } from "./dom.js";
import { inspect } from "./inspecting.js";
import { sources } from "./sources.js";
import { dayAndTime, number, percent, t, tn } from "./texts.js";
import { badge, gauge } from "./verdict.js";
import { viewer } from "./viewer.js";

/**
 * All of it.
 *
 * @param product As /api/products/NAME gives it.
 * @param signal Ends asking.
 * @param onChange Called once something was taken back.
 */
export function productSheet(product, signal, onChange) {
  if (product.baseline) return baselineSheet(product, signal);
  return el(
    "div",
    { class: "sheet" },
    section(t("product.noticed"), noticed(product)),
    section(t("product.promise"), promise(product)),
    section(t("product.finds"), finds(product)),
    tryIt(product, signal),
    section(t("product.changes"), changes(product, onChange)),
    settings(product),
  );
}

/** What is known of a product that a fitted baseline judges. */
function baselineSheet(product, signal) {
  return el(
    "div",
    { class: "sheet" },
    section(t("product.baseline"), el("p", {}, t("product.baseline_text")), facts(Object.entries(product.facts))),
    tryIt(product, signal),
  );
}

function section(title, ...content) {
  return el("section", { class: "card" }, el("h2", {}, title), content);
}

function noticed(product) {
  if (!product.notes.length) return el("p", {}, t("product.nothing_noticed"));
  return el("ul", { class: "notes" }, product.notes.map((note) => quoted(note, "li")));
}

/** How many good parts are rejected by mistake, as the calibration expects. */
function promise(product) {
  const { calibration } = product;
  const values = {
    rate: percent(calibration.false_reject_rate, 1),
    bound: calibration.false_reject_bound === null ? "" : percent(calibration.false_reject_bound, 1),
  };
  return [
    el("p", { class: "promise" }, t("product.rejects", values)),
    values.bound ? el("p", {}, t("product.rejects_bound", values)) : null,
    el("p", {}, tn(`product.${calibration.status}`, calibration.n)),
    product.threshold_set_by_hand ? el("p", {}, t("product.by_hand")) : null,
    quoted(calibration.explanation),
  ];
}

/** From which size on defects are found. */
function finds(product) {
  const { sensitivity } = product;
  if (sensitivity === null) return el("p", {}, t("product.unknown_limits"));
  const kinds = ["spot", "scratch", "patch"].map((kind) => {
    const from = sensitivity.found_from[kind];
    const size = percent(from ?? sensitivity.largest[kind], 1);
    return el("li", {}, t(`product.${from === null ? "misses" : "finds"}.${kind}`, { size }));
  });
  const picture = el("details", {}, el("summary", {}, t("product.limits")));
  picture.addEventListener("toggle", () => showLimits(product.name, picture), { once: true });
  return [
    sensitivity.warning ? notice("warning", t("product.warning"), quoted(sensitivity.warning)) : null,
    el("ul", {}, kinds),
    el("p", {}, t("product.caught", { share: percent(sensitivity.caught, 0), size: percent(sensitivity.min_defect, 1) })),
    el("p", {}, t("product.unseen")),
    quoted(sensitivity.explanation),
    picture,
  ];
}

function showLimits(name, place) {
  const image = el("img", { class: "limits", alt: t("product.limits_alt") });
  image.addEventListener("error", () => image.replaceWith(el("p", { class: "faint" }, t("product.no_limits"))));
  image.src = `/api/products/${part(name)}/limits.png`;
  place.append(image);
}

function changes(product, onChange) {
  const entries = [...product.history].reverse();
  return [
    entries.length
      ? el("ol", { class: "events changes" }, entries.map((one) => el("li", {}, el("time", {}, dayAndTime(one.time)), quoted(one.text, "span"))))
      : el("p", {}, t("product.unchanged")),
    entries[0]?.can_be_undone ? button(t("undo.button"), () => undoLast(product.name, onChange)) : null,
    product.known_defects.length ? el("p", {}, tn("product.known_defects", product.known_defects.length)) : null,
  ];
}

function settings(product) {
  return el(
    "details",
    { class: "card" },
    el("summary", {}, t("product.settings")),
    facts([
      [t("product.taught"), dayAndTime(product.created)],
      [t("product.support"), product.support.map((one) => one.name).join(", ")],
      [t("threshold"), number(product.threshold, 3)],
      [t("product.scale"), product.image_sizes.map((size) => `${size} px`).join(", ")],
      [t("product.encoder"), product.encoder.name],
      [t("product.parts"), t(product.parts === null ? "no" : "yes")],
      [t("product.registered"), t(product.registration === null ? "no" : "yes")],
    ]),
    el("ul", { class: "notes" }, product.reasons.map((reason) => quoted(reason, "li"))),
  );
}

/** The product's verdict on a photograph. */
function tryIt(product, signal) {
  const outcome = el("div", { class: "outcome", role: "status" });
  const row = sources({ onFiles: ([file]) => judge(file), takesMany: false, signal });

  async function judge(file) {
    fill(outcome, el("p", { class: "faint" }, t("product.trying")));
    try {
      const record = await inspect(product.name, file);
      const about = el("div", {}, badge(record.verdict), record.reason ? quoted(record.reason) : null, gauge(record));
      fill(outcome, el("div", { class: "try" }, viewer(record, { drawsOverlay: true }), about));
    } catch (error) {
      fill(outcome, failure(error));
    }
  }

  return section(t("product.try"), el("p", { class: "faint" }, t("product.try_text")), row, outcome);
}
