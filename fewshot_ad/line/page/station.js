// How the station is, for all views: asked for every few seconds.

import { Failure, get } from "./api.js";
import { poll } from "./poll.js";

const EVERY_MS = 4000;

class StationState extends EventTarget {
  /** What /api/health said last; null before. */
  health = null;
  /** Why nothing is known of it now; empty if something is. */
  unreachable = "";
  #skewMs = 0;
  #again = () => {};

  /** Begin to ask, until the signal ends it. */
  watch(signal) {
    this.#again = poll(() => this.#ask(signal), EVERY_MS, signal);
  }

  /** Ask at once. */
  ask() {
    this.#again();
  }

  /** Take note that somebody got no answer, or got one again. */
  note(unreachable) {
    if (unreachable === this.unreachable) return;
    this.unreachable = unreachable;
    this.dispatchEvent(new Event("change"));
  }

  /** The station's own time in milliseconds, which may differ from the browser's. */
  now() {
    return Date.now() + this.#skewMs;
  }

  async #ask(signal) {
    try {
      this.health = await get("/api/health", { signal });
      this.#skewMs = Date.parse(this.health.now) - Date.now();
      this.unreachable = "";
    } catch (error) {
      if (error instanceof Failure && error.status === 0) this.unreachable = error.message;
      throw error;
    } finally {
      if (!signal.aborted) this.dispatchEvent(new Event("change"));
    }
  }
}

export const station = new StationState();
