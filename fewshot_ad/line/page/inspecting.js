// Having photographs inspected.

import { part, send } from "./api.js";

const BUSY_TRIES = 5;
const BUSY_MS = 1000;

/**
 * Have a photograph inspected.
 *
 * @param product As which product; empty has the station find out.
 * @param file The photograph.
 * @returns The record, also of what is no image.
 */
export async function inspect(product, file) {
  const path = product ? `/api/products/${part(product)}/inspect` : "/api/inspect";
  for (let tries = 1; ; tries += 1) {
    try {
      return await send(path, file, { query: { name: file.name } });
    } catch (error) {
      if (error.status === 422 && error.record) return error.record;
      if (error.status !== 503 || tries === BUSY_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
    }
  }
}

/** Have what a camera of the station shows inspected. */
export function trigger(camera) {
  return send(`/api/cameras/${part(camera)}/trigger`);
}
