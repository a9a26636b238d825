// Saying of a verdict what the part is: good, defective, or as the verdict says; and taking it back.

import { get, part, send } from "./api.js";
import { ask, failure, openDialog, toast } from "./dialog.js";
import { button, el, fill, notice, quoted } from "./dom.js";
import { regionEditor } from "./region.js";
import { dayAndTime, t } from "./texts.js";
import { badge, correctionChip } from "./verdict.js";
import { pictureAddress } from "./viewer.js";

// What may be said of each verdict.
const ACTIONS = {
  good: ["confirm", "reject"],
  review: ["accept", "reject"],
  anomalous: ["accept", "confirm", "reject"],
  not_inspectable: ["accept", "confirm"],
  unreadable: [],
};
// The station's refusals that may be overridden say so.
const MAY_BE_FORCED = /\bforce\b/;

/**
 * What may be said of a record.
 *
 * @param record The inspection.
 * @param said What was said of it before; null for nothing.
 * @param onChange Called with what was said: an action, or null where it was taken back.
 * @returns The element; null where there is nothing to say.
 */
export function correctionPanel(record, said = null, onChange = () => {}) {
  const actions = record.product ? ACTIONS[record.verdict] : [];
  if (!actions.length) return null;
  const panel = el("section", { class: "correction" });
  const tell = (action) => {
    show(action);
    onChange(action);
  };

  function show(action) {
    fill(
      panel,
      el("h2", {}, t("correct.title")),
      action ? el("p", {}, correctionChip(action)) : null,
      el("div", { class: "actions" }, actions.map((name) => button(t(`correct.${name}.${record.verdict}`), () => correct(record, name, tell)))),
      action === "accept" || action === "reject"
        ? button(t("undo.button"), () => undoLast(record.product, () => tell(null)), "quiet")
        : null,
    );
  }

  show(said);
  return panel;
}

/** Ask whether to say it, with the part in view: on a line, the next one may have come meanwhile. */
function correct(record, action, onDone) {
  const body = el("div", { class: "dialog-body" });
  const actions = el("div", { class: "actions" });
  const editor = action === "reject" ? regionEditor(record) : null;

  function begin() {
    fill(body, el("p", {}, t(`correct.${action}.text`)), editor?.element ?? null);
    fill(actions, button(t(`correct.${action}.yes`), () => say(false), "primary"), button(t("cancel"), () => node.close()));
  }

  async function say(force) {
    fill(actions, el("p", { class: "faint", role: "status" }, t("correct.working")));
    try {
      const answer = await send(`/api/inspections/${part(record.id)}/${action}`, { region: editor?.region() ?? null, force });
      done(answer.notes);
    } catch (error) {
      refused(error, force);
    }
  }

  function done(notes) {
    onDone(action);
    const words = notes.length ? [el("p", {}, t("correct.noticed")), ...notes.map((note) => quoted(note))] : [];
    fill(body, notice("good", t(`correct.${action}.done`), words));
    const undo = action === "confirm" ? null : button(t("undo.button"), () => (node.close(), undoLast(record.product, () => onDone(null))));
    const close = button(t("close"), () => node.close(), "primary");
    fill(actions, close, undo);
    close.focus();
  }

  function refused(error, wasForced) {
    fill(body, failure(error, t("correct.refused")));
    const mayForce = action === "accept" && !wasForced && error.status === 422 && MAY_BE_FORCED.test(error.message);
    fill(
      actions,
      button(t("close"), () => node.close(), "primary"),
      mayForce ? button(t("correct.force"), () => askAgain(error)) : null,
    );
    actions.firstChild.focus();
  }

  function askAgain(error) {
    fill(body, notice("warning", t("correct.force_title"), el("p", {}, t("correct.force_text")), quoted(error.message)));
    fill(actions, button(t("cancel"), () => node.close(), "primary"), button(t("correct.force_yes"), () => say(true), "danger"));
    actions.firstChild.focus();
  }

  begin();
  const node = openDialog(t(`correct.${action}.title`), [summary(record, editor === null), body, actions], editor !== null);
}

/** Which part it is about. */
function summary(record, withPicture) {
  const picture = el("img", { class: "thumbnail", alt: "" });
  picture.addEventListener("error", () => picture.remove());
  if (withPicture) picture.src = pictureAddress(record, record.overlay ? "overlay" : "image");
  const about = el("p", {}, `${record.product} · ${record.name || record.id} · ${dayAndTime(record.time)}`);
  return el("div", { class: "summary" }, withPicture ? picture : null, el("div", {}, badge(record.verdict), about));
}

/**
 * Take the last change of a product back, once it is clear which that is.
 *
 * @param product Name of the product.
 * @param onDone Called once it is taken back.
 */
export async function undoLast(product, onDone) {
  try {
    const { history } = await get(`/api/products/${part(product)}`);
    const last = history.at(-1);
    if (!last?.can_be_undone) {
      openDialog(t("undo.title"), el("p", {}, t(last ? "undo.too_old" : "undo.nothing", { product })));
      return;
    }
    const words = [el("p", {}, t("undo.text", { product })), quoted(last.text), el("p", { class: "faint" }, dayAndTime(last.time))];
    if (!(await ask(t("undo.title"), words, t("undo.yes")))) return;
    await send(`/api/products/${part(product)}/undo`);
    toast(t("undo.done", { product }));
    onDone();
  } catch (error) {
    openDialog(t("error.title"), failure(error));
  }
}
