// Talking to the station.

import { t } from "./texts.js";

/** Why there is no answer, or none that was hoped for. */
export class Failure extends Error {
  constructor(status, text, record = null) {
    super(text);
    this.status = status;
    this.record = record;
  }
}

/** Whether a failure is only that the view was left. */
export function isLeft(error) {
  return error.name === "AbortError";
}

/** Tells when the station asks for its token. */
export const access = new EventTarget();

/** A name as part of an address. */
export const part = encodeURIComponent;

/** An address with a query; empty values are left out, lists are repeated. */
export function address(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") search.append(name, one);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    throw isLeft(error) ? error : new Failure(0, t("error.unreachable"));
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "/api/session") access.dispatchEvent(new Event("closed"));
  const said = await response.json().catch(() => ({}));
  throw new Failure(response.status, said.error ?? t("error.status", { status: response.status }), said.record ?? null);
}

/** What the station says at an address. */
export async function get(path, { query, signal } = {}) {
  return (await answer(address(path, query), { signal })).json();
}

/** A picture at an address. */
export async function getPicture(path, { signal } = {}) {
  return (await answer(path, { signal })).blob();
}

/** Send JSON, a form, or an image, and what the station answers. */
export async function send(path, body = {}, { method = "POST", query, signal } = {}) {
  const isPlain = !(body instanceof Blob || body instanceof FormData);
  const headers = {};
  if (isPlain) headers["Content-Type"] = "application/json";
  else if (body instanceof Blob) headers["Content-Type"] = body.type || "application/octet-stream";
  const options = { method, headers, body: isPlain ? JSON.stringify(body) : body, signal };
  return (await answer(address(path, query), options)).json();
}

/** Delete what is at an address. */
export async function remove(path) {
  return (await answer(path, { method: "DELETE" })).json();
}
