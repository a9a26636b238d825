// Asking again and again: seldom while nobody looks, and ever more seldom while nothing answers.

const SLOWEST_MS = 10_000;
const HIDDEN_MS = 15_000;

/**
 * Call `work` every so many milliseconds, until the signal ends it.
 *
 * @returns Calls it at once.
 */
export function poll(work, everyMs, signal) {
  let timer = null;
  let pause = everyMs;
  let isUnderWay = false;

  async function run() {
    clearTimeout(timer);
    if (isUnderWay || signal.aborted) return;
    isUnderWay = true;
    try {
      await work();
      pause = everyMs;
    } catch {
      pause = Math.min(SLOWEST_MS, 2 * pause);
    }
    isUnderWay = false;
    if (!signal.aborted) timer = setTimeout(run, document.hidden ? Math.max(HIDDEN_MS, pause) : pause);
  }

  signal.addEventListener("abort", () => clearTimeout(timer));
  document.addEventListener("visibilitychange", () => document.hidden || run(), { signal });
  run();
  return run;
}
