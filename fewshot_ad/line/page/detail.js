// One inspection: its image and overlay beside the nearest support image, its figures, and what is said of it.

import { get, isLeft, part } from "./api.js";
import { correctionPanel } from "./correct.js";
import { failure } from "./dialog.js";
import { button, el, facts, fill, heading, linkButton, quoted } from "./dom.js";
import { dayAndTime, milliseconds, number, t } from "./texts.js";
import { badge, correctionChip, gauge, partsText } from "./verdict.js";
import { pictureAddress, viewer } from "./viewer.js";

/**
 * Show a record.
 *
 * @param main Where.
 * @param id Of the record.
 * @param list The list that it was chosen from; null for none.
 * @param signal Ends asking.
 */
export async function detail(main, id, list, signal) {
  const back = linkButton(t("detail.back"), list?.place ?? "#/history", { class: "button quiet back" });
  fill(main, back, el("p", { class: "faint" }, t("loading")));
  try {
    const path = `/api/inspections/${part(id)}`;
    const [record, said] = await Promise.all([get(path, { signal }), get(`${path}/correction`, { signal })]);
    show(main, record, said.action, back);
    await addNeighbors(main, id, list, signal);
  } catch (error) {
    if (!isLeft(error)) fill(main, back, failure(error));
  }
}

function show(main, record, said, back) {
  const chip = el("span", {}, correctionChip(said));
  const title = heading("", { class: "detail-title" });
  title.append(badge(record.verdict), el("span", { class: "detail-name" }, record.name || record.product || record.id), chip);
  const nearest = el("figure", { class: "nearest" }, el("figcaption", {}, t("detail.nearest")));
  const picture = viewer(record, { drawsOverlay: true, onImage: () => showNearest(record, nearest) });
  const corrected = (action) => fill(chip, correctionChip(action));
  fill(
    main,
    el("div", { class: "detail-bar" }, back, el("div", { class: "actions neighbors" })),
    title,
    record.reason ? quoted(record.reason) : null,
    el("div", { class: "detail-pictures" }, picture, nearest),
    el("div", { class: "detail-grid" }, el("div", {}, correctionPanel(record, said, corrected)), figures(record)),
  );
  title.focus({ preventScroll: true });
}

function showNearest(record, place) {
  if (!record.product || record.verdict === "unreadable" || place.querySelector("img")) return;
  const image = el("img", { alt: t("detail.nearest") });
  image.addEventListener("error", () => image.replaceWith(el("p", { class: "no-image" }, t("detail.no_nearest"))));
  image.src = pictureAddress(record, "nearest");
  place.prepend(image);
}

function figures(record) {
  return el(
    "section",
    {},
    gauge(record),
    facts([
      [t("product"), record.product],
      [t("name"), record.name],
      [t("time"), dayAndTime(record.time)],
      [t("score"), record.score === null ? null : number(record.score, 3)],
      [t("threshold"), record.threshold === null ? null : number(record.threshold, 3)],
      [t("parts"), partsText(record)],
      [t("duration"), milliseconds(record.milliseconds)],
      [t("source"), record.source],
      [t("station"), record.station],
      [t("detail.key"), record.key],
      [t("detail.id"), el("code", {}, record.id)],
      [t("detail.artifact"), record.artifact ? el("code", {}, record.artifact) : null],
    ]),
    el("a", { class: "plain", href: `/api/inspections/${part(record.id)}`, target: "_blank" }, t("detail.json")),
  );
}

/** Ways to the records before and after it, also by the arrow keys. */
async function addNeighbors(main, id, list, signal) {
  if (list === null) return;
  const [newer, older] = [await list.neighbor(id, -1, signal), await list.neighbor(id, 1, signal)];
  const go = (record) => () => (location.hash = `#/history/${part(record.id)}`);
  fill(
    main.querySelector(".neighbors"),
    newer ? button(t("detail.newer"), go(newer), "quiet") : null,
    older ? button(t("detail.older"), go(older), "quiet") : null,
  );
  const ways = { ArrowLeft: newer, ArrowRight: older };
  document.addEventListener(
    "keydown",
    (event) => {
      const isElsewhere = event.target.closest("input, select, dialog, .region");
      if (ways[event.key] && !isElsewhere && !event.altKey && !event.ctrlKey && !event.metaKey) go(ways[event.key])();
    },
    { signal },
  );
}
