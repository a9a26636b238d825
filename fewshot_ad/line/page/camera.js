// Photographs from a camera: the browser's own, or one of the station's, with a picture of what it sees.

import { getPicture, part } from "./api.js";
import { openDialog } from "./dialog.js";
import { button, el, fill, notice } from "./dom.js";
import { t, tn } from "./texts.js";

const FRAME_MS = 400;

/** The browser's camera. */
export class BrowserCamera {
  #video = el("video", { class: "camera-picture", autoplay: true, muted: true, playsinline: true });
  #stream = null;

  /** Begin to show what it sees in an element. */
  async start(place) {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(t("camera.insecure"));
    const wanted = { facingMode: "environment", width: { ideal: 3840 }, height: { ideal: 2160 } };
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      throw new Error(t(error.name === "NotAllowedError" ? "camera.refused" : "camera.none"));
    }
    this.#video.srcObject = this.#stream;
    fill(place, this.#video);
    await this.#video.play();
  }

  /** What it sees now, as PNG. */
  async take() {
    const canvas = el("canvas", { width: this.#video.videoWidth, height: this.#video.videoHeight });
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  /** Let go of it. */
  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
  }
}

/** A camera of the station. */
export class StationCamera {
  #name;
  #ending = new AbortController();
  #image = el("img", { class: "camera-picture", alt: t("camera.sees") });

  constructor(name) {
    this.#name = name;
  }

  /** Begin to show what it sees in an element. */
  async start(place) {
    await this.#show(await this.take());
    fill(place, this.#image);
    this.#follow();
  }

  /** What it sees now, as JPEG. */
  take() {
    return getPicture(`/api/cameras/${part(this.#name)}/frame`, { signal: this.#ending.signal });
  }

  /** Ask it no more. */
  stop() {
    this.#ending.abort();
  }

  async #follow() {
    while (!this.#ending.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      await this.take().then((blob) => this.#show(blob), () => {});
    }
  }

  async #show(blob) {
    const url = URL.createObjectURL(blob);
    this.#image.src = url;
    await this.#image.decode().catch(() => {});
    URL.revokeObjectURL(url);
  }
}

/**
 * Let somebody take photographs.
 *
 * @param camera What takes them.
 * @param title What the window is called.
 * @param takesMany Whether it stays open after the first.
 * @param onPhotograph Called with each, as a file.
 */
export async function photograph(camera, title, takesMany, onPhotograph) {
  const place = el("div", { class: "camera-place" }, el("p", { class: "faint" }, t("camera.starting")));
  const count = el("span", { class: "faint", role: "status" });
  let taken = 0;
  const take = button(t("camera.take"), takeOne, "primary", { disabled: true });
  const done = button(t(takesMany ? "done" : "cancel"), () => node.close());
  const node = openDialog(title, [place, el("div", { class: "actions" }, take, done, count)], true);
  node.addEventListener("close", () => camera.stop());

  async function takeOne() {
    const blob = await camera.take();
    taken += 1;
    onPhotograph(new File([blob], fileName(blob, taken), { type: blob.type }));
    if (takesMany) count.textContent = tn("camera.taken", taken);
    else node.close();
  }

  try {
    await camera.start(place);
    take.disabled = false;
    take.focus();
  } catch (error) {
    fill(place, notice("error", error.message));
  }
  // Closed while it was being opened.
  if (!node.open) camera.stop();
}

function fileName(blob, taken) {
  const moment = new Date().toISOString().slice(0, 19).replace("T", " ").replaceAll(":", "-");
  return `${moment} ${taken}.${blob.type === "image/png" ? "png" : "jpg"}`;
}
