// An image with its overlay above it: faded in, or wiped over it.

import { Failure, getPicture, isLeft, part } from "./api.js";
import { button, el, fill, linkButton } from "./dom.js";
import { recall, remember } from "./memory.js";
import { t } from "./texts.js";

/** The address of a picture of an inspection: "image", "overlay" or "nearest". */
export function pictureAddress(record, what) {
  return `/api/inspections/${part(record.id)}/${what}`;
}

/**
 * The picture of a record.
 *
 * @param record The inspection.
 * @param drawsOverlay Whether an overlay that was not kept is drawn at once; the station inspects once more for it.
 * @param onImage Called once the image is shown.
 * @returns The element.
 */
export function viewer(record, { drawsOverlay = false, onImage = () => {} } = {}) {
  const stage = el("div", { class: "stage" });
  const controls = el("div", { class: "viewer-controls" });
  const figure = el("figure", { class: "viewer" }, stage, controls);
  const size = record.inspection?.size;
  if (size) stage.style.aspectRatio = `${size[0]} / ${size[1]}`;
  const image = el("img", { class: "image", alt: t("viewer.image", { name: record.name || record.product }) });
  image.addEventListener("load", () => {
    if (!size) stage.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
    onImage();
  });
  image.addEventListener("error", () => explain(stage, record));
  image.src = pictureAddress(record, "image");
  stage.append(image);
  if (record.verdict === "unreadable" || !record.product) return figure;
  if (record.overlay || drawsOverlay) showOverlay(record, stage, controls);
  else offerOverlay(record, stage, controls);
  return figure;
}

function offerOverlay(record, stage, controls) {
  controls.append(button(t("viewer.draw"), () => showOverlay(record, stage, controls), "quiet"));
}

function showOverlay(record, stage, controls) {
  const overlay = el("img", { class: "overlay", alt: t("viewer.overlay") });
  const line = el("div", { class: "wipe-line" });
  const slider = el("input", { type: "range", min: "0", max: "100", value: "100", "aria-label": t("viewer.slider") });
  const mode = el(
    "select",
    { "aria-label": t("viewer.mode") },
    ["fade", "wipe"].map((name) => el("option", { value: name, selected: recall("viewer") === name }, t(`viewer.${name}`))),
  );
  const apply = () => place(overlay, line, mode.value, Number(slider.value));
  slider.addEventListener("input", apply);
  mode.addEventListener("change", () => (remember("viewer", mode.value), apply()));
  overlay.addEventListener("error", () => {
    overlay.remove();
    fill(controls, el("p", { class: "faint" }, t("viewer.no_overlay")));
  });
  overlay.addEventListener("load", () => {
    const full = linkButton(t("viewer.full"), pictureAddress(record, "overlay"), { target: "_blank", class: "button quiet" });
    const ends = [el("span", {}, t("viewer.image_end")), slider, el("span", {}, t("viewer.overlay_end"))];
    fill(controls, el("div", { class: "slider" }, ends), mode, full);
  });
  overlay.src = pictureAddress(record, "overlay");
  stage.append(overlay, line);
  apply();
}

function place(overlay, line, mode, share) {
  const isWipe = mode === "wipe";
  overlay.style.opacity = isWipe ? 1 : share / 100;
  overlay.style.clipPath = isWipe ? `inset(0 ${100 - share}% 0 0)` : "none";
  line.hidden = !isWipe || share === 0 || share === 100;
  line.style.left = `${share}%`;
}

/** Say why there is no image: it was not kept, or the browser cannot show one of its kind. */
async function explain(stage, record) {
  let text = t(record.verdict === "unreadable" ? "viewer.not_image" : "viewer.kind");
  try {
    await getPicture(pictureAddress(record, "image"));
  } catch (error) {
    if (isLeft(error)) return;
    text = error instanceof Failure && error.status === 404 ? t("viewer.not_kept") : error.message;
  }
  stage.querySelector(".image")?.remove();
  stage.prepend(el("p", { class: "no-image" }, text));
  stage.classList.add("without-image");
}
