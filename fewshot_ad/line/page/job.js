// Long work of the station: how far it is, and ending it.

import { get, isLeft, part, remove } from "./api.js";
import { failure } from "./dialog.js";
import { button, el, fill, notice } from "./dom.js";
import { t, tOr } from "./texts.js";

const EVERY_MS = 400;
const ENDED = ["done", "failed", "canceled"];

/**
 * Show a piece of work until it ends.
 *
 * @param job What the station said of it when it was asked for.
 * @param place The element that it is shown in.
 * @param signal Ends looking, not the work.
 * @returns The work as it ended; null if the view was left before.
 */
export async function follow(job, place, signal) {
  const bar = el("progress", { max: "1", "aria-label": t("job.progress") });
  const words = el("p", { role: "status" });
  const cancel = button(t("job.cancel"), () => {
    cancel.disabled = true;
    words.textContent = t("job.canceling");
    remove(`/api/jobs/${part(job.id)}`).catch((error) => place.append(failure(error)));
  });
  fill(place, el("div", { class: "job" }, el("h2", {}, t("job.title", { product: job.product })), bar, words, el("div", { class: "actions" }, cancel)));

  function tell(now) {
    if (now.total > 0) bar.value = now.done / now.total;
    else bar.removeAttribute("value");
    if (!cancel.disabled) words.textContent = now.state === "waiting" ? t("job.waiting") : tOr(`stage.${now.stage}`, t("stage.other"));
  }

  let now = job;
  while (!ENDED.includes(now.state)) {
    tell(now);
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    if (signal.aborted) return null;
    now = await get(`/api/jobs/${part(job.id)}`, { signal }).catch((error) => askedAgain(error, now));
  }
  if (signal.aborted) return null;
  showEnd(now, place);
  return now;
}

/** What is known while the station does not answer: it may answer again, unless it does not know of the work any more. */
function askedAgain(error, before) {
  if (isLeft(error) || error.status === 0 || error.status === 503) return before;
  return { ...before, state: "failed", error: error.message };
}

function showEnd(job, place) {
  if (job.state === "failed") fill(place, failure({ status: 500, message: job.error }, t("job.failed")));
  else if (job.state === "canceled") fill(place, notice("info", t("job.canceled")));
  else fill(place);
}

/** The enrollment that is under way or waits; null for none. */
export async function jobUnderWay(signal) {
  const jobs = await get("/api/jobs", { signal });
  return jobs.find((one) => one.kind === "enroll" && !ENDED.includes(one.state)) ?? null;
}
