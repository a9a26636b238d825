// Drawing a box around a defect: with a pointer, a finger, or the arrow keys.

import { button, el } from "./dom.js";
import { t } from "./texts.js";
import { pictureAddress } from "./viewer.js";

// How far an arrow key moves the box, and the least side of one, as shares of the image's side.
const STEP = 0.01;
const SMALLEST = 0.01;
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/**
 * An image to draw a box on; it begins with the place that the verdict rests on.
 *
 * @returns Its element, and `region()`: x, y, width and height in pixels of the image; null for no box.
 */
export function regionEditor(record) {
  const image = el("img", { alt: t("region.image"), draggable: "false" });
  const frame = el("div", { class: "region-frame" });
  const place = el("div", { class: "region", tabindex: "0", role: "application", "aria-label": t("region.label") }, image, frame);
  const hint = el("p", { class: "faint" }, t("region.hint"));
  const none = button(t("region.none"), () => set(null), "quiet");
  const element = el("div", { class: "region-editor" }, hint, place, none);
  let box = null;

  function set(wanted) {
    box = wanted;
    frame.hidden = none.disabled = box === null;
    if (box === null) return;
    const [left, top, width, height] = box.map((share) => `${100 * share}%`);
    Object.assign(frame.style, { left, top, width, height });
  }

  image.addEventListener("error", () => element.replaceChildren(el("p", { class: "faint" }, t("region.no_image"))));
  image.src = pictureAddress(record, "image");
  drawWithPointer(place, set);
  place.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    set(moved(box ?? [0.4, 0.4, 0.2, 0.2], arrow, event.shiftKey));
  });
  const size = record.inspection?.size;
  const first = record.inspection?.regions[0]?.box;
  set(size && first ? [first[0] / size[0], first[1] / size[1], first[2] / size[0], first[3] / size[1]] : null);
  return { element, region: () => (box === null ? null : inPixels(box, size ?? [image.naturalWidth, image.naturalHeight])) };
}

function drawWithPointer(place, set) {
  let start = null;
  const at = (event) => {
    const { left, top, width, height } = place.getBoundingClientRect();
    return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
  };
  place.addEventListener("pointerdown", (event) => {
    place.setPointerCapture(event.pointerId);
    start = at(event);
  });
  place.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const [x, y] = at(event);
    const box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
    // A tap is no box.
    if (box[2] >= SMALLEST && box[3] >= SMALLEST) set(box);
  });
  for (const end of ["pointerup", "pointercancel"]) place.addEventListener(end, () => (start = null));
}

/** A box that is moved, or made larger or smaller, and stays within the image. */
function moved([x, y, width, height], [right, down], isSize) {
  if (isSize) return [x, y, clamp(width + right, SMALLEST, 1 - x), clamp(height + down, SMALLEST, 1 - y)];
  return [clamp(x + right, 0, 1 - width), clamp(y + down, 0, 1 - height), width, height];
}

function inPixels([x, y, width, height], [columns, rows]) {
  const left = Math.min(columns - 1, Math.round(x * columns));
  const top = Math.min(rows - 1, Math.round(y * rows));
  const across = Math.max(1, Math.min(columns - left, Math.round(width * columns)));
  return [left, top, across, Math.max(1, Math.min(rows - top, Math.round(height * rows)))];
}

function clamp(value, least = 0, most = 1) {
  return Math.min(most, Math.max(least, value));
}
