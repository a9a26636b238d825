// Questions and windows above the page. Escape closes them, and the focus goes back to where it was.

import { button, el, notice, quoted } from "./dom.js";
import { t } from "./texts.js";

let count = 0;

/**
 * Show a window.
 *
 * @param title Its heading.
 * @param content Elements in it.
 * @param isWide Whether it shows a picture.
 */
export function openDialog(title, content, isWide = false) {
  const id = `dialog-${(count += 1)}`;
  const node = el("dialog", { class: isWide ? "wide" : null, "aria-labelledby": id }, el("h2", { id }, title), content);
  node.addEventListener("close", () => node.remove());
  document.body.append(node);
  node.showModal();
  return node;
}

/** Ask a question; true for yes. */
export function ask(title, content, yes, kind = "primary") {
  return new Promise((resolve) => {
    // Whoever presses Enter without reading deletes nothing.
    const isDangerous = kind === "danger";
    const answers = [
      button(yes, () => node.close("yes"), kind),
      button(t("cancel"), () => node.close("no"), "", { autofocus: isDangerous }),
    ];
    const node = openDialog(title, [el("div", { class: "dialog-body" }, content), el("div", { class: "actions" }, answers)]);
    node.addEventListener("close", () => resolve(node.returnValue === "yes"));
  });
}

/** Close every window, since the view behind it is left. */
export function closeDialogs() {
  for (const node of document.querySelectorAll("dialog[open]")) node.close("no");
}

/** A short message that goes away by itself, with something to do about it. */
export function toast(text, action = null) {
  const node = el("div", { class: "toast" }, el("span", {}, text));
  const close = () => node.remove();
  if (action) node.append(button(action.text, () => (close(), action.run()), "quiet"));
  node.append(button("×", close, "quiet", { "aria-label": t("close") }));
  document.getElementById("toasts").append(node);
  setTimeout(close, action ? 20_000 : 8_000);
}

/** Why something did not work, in the station's words. */
export function failure(error, title = t("error.title")) {
  return error.status ? notice("error", title, quoted(error.message)) : notice("error", error.message);
}
