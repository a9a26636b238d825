// The frame around the views: the way to each, language, colors, and what is wrong with the station.

import { access, get, remove } from "./api.js";
import { closeDialogs } from "./dialog.js";
import { button, el, fill, quoted } from "./dom.js";
import * as health from "./health.js";
import * as history from "./history.js";
import * as live from "./live.js";
import { recall, remember } from "./memory.js";
import * as signIn from "./signin.js";
import { station } from "./station.js";
import * as teach from "./teach.js";
import { chooseLanguage, currentLanguage, LANGUAGES, loadTexts, t } from "./texts.js";

const VIEWS = { live, teach, history, health };
const NAMES = { en: "English", de: "Deutsch" };
const main = document.getElementById("main");
let leaving = new AbortController();
let session = { needed: false, open: true };

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  return { name: name in VIEWS ? name : "live", path: rest.filter(Boolean), query: new URLSearchParams(query) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function showView() {
  leaving.abort();
  leaving = new AbortController();
  closeDialogs();
  showFrame();
  showBanner();
  if (session.needed && !session.open) {
    document.title = t("signin.title");
    signIn.show(main, () => enter().then(showView));
    return;
  }
  station.watch(leaving.signal);
  const { name, path, query } = place();
  document.title = `${t(`nav.${name}`)} – ${station.health?.station ?? t("station")}`;
  VIEWS[name].show(main, { signal: leaving.signal, path, query });
  main.querySelector("h1")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function showFrame() {
  const isOpen = !session.needed || session.open;
  const { name } = place();
  const link = (view) => el("a", { href: `#/${view}`, "aria-current": view === name ? "page" : null }, t(`nav.${view}`));
  const nav = document.getElementById("nav");
  nav.setAttribute("aria-label", t("nav.label"));
  fill(nav, isOpen ? Object.keys(VIEWS).map(link) : []);
  fill(document.getElementById("skip"), t("nav.skip"));
  const signOut = session.needed && session.open ? button(t("signin.close"), leave, "quiet") : null;
  fill(document.getElementById("switches"), languageSwitch(), themeSwitch(), signOut);
}

function languageSwitch() {
  const other = LANGUAGES.find((name) => name !== currentLanguage());
  const change = () => {
    chooseLanguage(other);
    showView();
  };
  return button(other.toUpperCase(), change, "quiet", { lang: other, "aria-label": NAMES[other], title: NAMES[other] });
}

function themeSwitch() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme ?? system;
  const other = now === "dark" ? "light" : "dark";
  const change = () => {
    // What the system says needs no choice of its own, and goes with the system again.
    remember("theme", other === system ? null : other);
    applyTheme();
    showFrame();
  };
  const text = t(`theme.${other}`);
  return button(other === "dark" ? "☾" : "☀", change, "quiet", { "aria-label": text, title: text });
}

function applyTheme() {
  const chosen = recall("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

/** What is wrong, above every view. */
function showBanner() {
  const { health: known, unreachable } = station;
  const banner = document.getElementById("banner");
  const problems = known?.problems ?? [];
  // There, all of it stands first anyway.
  banner.hidden = place().name === "health";
  const key = JSON.stringify([currentLanguage(), unreachable, problems]);
  fill(document.getElementById("station"), known?.station ?? "fewshot_ad");
  // Told once, and not at every look.
  if (banner.dataset.key === key) return;
  banner.dataset.key = key;
  if (unreachable) fill(banner, el("p", {}, el("b", {}, unreachable)));
  else if (problems.length) fill(banner, el("p", {}, el("b", {}, t("banner.trouble")), " ", quoted(problems[0], "span")), el("a", { href: "#/health" }, t("banner.more")));
  else fill(banner);
}

async function enter() {
  session = await get("/api/session").catch(() => session);
}

async function leave() {
  await remove("/api/session").catch(() => {});
  await enter();
  showView();
}

async function start() {
  applyTheme();
  await loadTexts();
  await enter();
  station.addEventListener("change", showBanner);
  access.addEventListener("closed", () => {
    if (session.needed && !session.open) return;
    session = { needed: true, open: false };
    showView();
  });
  window.addEventListener("hashchange", showView);
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  showView();
}

start();
