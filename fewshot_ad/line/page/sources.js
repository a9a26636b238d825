// Where photographs come from: files, the browser's camera, the station's cameras.

import { get, isLeft } from "./api.js";
import { BrowserCamera, photograph, StationCamera } from "./camera.js";
import { button, el } from "./dom.js";
import { t } from "./texts.js";

/** What the station reads, as browsers ask for it. */
export const ACCEPTED = "image/*,.tif,.tiff,.bmp,.pgm,.ppm,.pnm";

/**
 * Buttons to take photographs with.
 *
 * @param onFiles Called with a list of files.
 * @param takesMany Whether several may be chosen.
 * @param onStationCamera Called with the name of a camera of the station; by default its pictures become files.
 * @param signal Ends asking for the cameras.
 */
export function sources({ onFiles, takesMany, onStationCamera, signal }) {
  const input = el("input", { type: "file", accept: ACCEPTED, multiple: takesMany });
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) onFiles(files);
  });
  const choose = el("label", { class: "button file" }, input, t(takesMany ? "sources.files" : "sources.file"));
  const own = button(t("sources.browser"), () =>
    photograph(new BrowserCamera(), t("sources.browser"), takesMany, (file) => onFiles([file])),
  );
  const row = el("div", { class: "sources" }, choose, own);
  const grab = (name) =>
    photograph(new StationCamera(name), t("sources.station", { name }), takesMany, (file) => onFiles([file]));
  addStationCameras(row, onStationCamera ?? grab, signal);
  return row;
}

async function addStationCameras(row, onCamera, signal) {
  try {
    const cameras = await get("/api/cameras", { signal });
    row.append(...cameras.map(({ name }) => button(t("sources.station", { name }), () => onCamera(name))));
  } catch (error) {
    if (!isLeft(error)) row.append(el("span", { class: "faint" }, t("sources.unknown")));
  }
}
