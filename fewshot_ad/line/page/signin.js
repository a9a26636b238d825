// The way in, where the station asks for its token.

import { send } from "./api.js";
import { failure } from "./dialog.js";
import { button, el, fill, heading } from "./dom.js";
import { t } from "./texts.js";

/**
 * Ask for the token.
 *
 * @param main Where.
 * @param onOpen Called once the station lets this browser in.
 */
export function show(main, onOpen) {
  const token = el("input", { type: "password", autocomplete: "current-password", required: true });
  const outcome = el("div", { role: "alert" });
  const form = el(
    "form",
    { class: "card sign-in" },
    heading(t("signin.title")),
    el("p", {}, t("signin.text")),
    el("label", { class: "field" }, el("span", {}, t("signin.token")), token),
    outcome,
    button(t("signin.open"), () => {}, "primary", { type: "submit" }),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await send("/api/session", { token: token.value.trim() });
      onOpen();
    } catch (error) {
      fill(outcome, failure(error, t("signin.wrong")));
      token.select();
    }
  });
  fill(main, form);
  token.focus();
}
