// Photographs that are collected before they are sent: added, looked at, removed.

import { button, el, fill } from "./dom.js";
import { t } from "./texts.js";

/** Photographs of good parts, and how they are shown. */
export class Photographs {
  /** The files, in the order in which they came. */
  files = [];
  #urls = new Map();
  #list = el("ul", { class: "thumbnails" });
  #onChange;

  /**
   * @param onChange Called when there are more or fewer.
   */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** The element that shows them. */
  get element() {
    return this.#list;
  }

  /** Add files; one that is there already is not added again. */
  add(files) {
    const isKnown = (file) => this.files.some((one) => one.name === file.name && one.size === file.size && one.lastModified === file.lastModified);
    for (const file of files) {
      if (isKnown(file)) continue;
      this.files.push(file);
      this.#urls.set(file, URL.createObjectURL(file));
    }
    this.#show();
  }

  /** Remove all. */
  clear() {
    for (const file of [...this.files]) this.#forget(file);
    this.#show();
  }

  #remove(file) {
    const at = this.files.indexOf(file);
    this.#forget(file);
    this.#show();
    // The focus stays among them.
    const buttons = this.#list.querySelectorAll("button");
    buttons[Math.min(at, buttons.length - 1)]?.focus();
  }

  #forget(file) {
    this.files.splice(this.files.indexOf(file), 1);
    URL.revokeObjectURL(this.#urls.get(file));
    this.#urls.delete(file);
  }

  #show() {
    fill(this.#list, this.files.map((file) => this.#entry(file)));
    this.#onChange();
  }

  #entry(file) {
    const image = el("img", { src: this.#urls.get(file), alt: "", loading: "lazy", decoding: "async" });
    const unseen = () => image.replaceWith(el("span", { class: "thumbnail-unseen" }, t("photographs.no_preview")));
    image.addEventListener("error", unseen);
    const away = button("×", () => this.#remove(file), "", { "aria-label": t("photographs.remove", { name: file.name }) });
    return el("li", {}, image, el("span", { class: "thumbnail-name" }, file.name), away);
  }
}

/** Have files that are dropped on an element handed over. */
export function acceptDrops(place, onFiles) {
  const mark = (isOver) => place.classList.toggle("drop-over", isOver);
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  place.addEventListener("dragleave", () => mark(false));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    onFiles([...event.dataTransfer.files]);
  });
}
