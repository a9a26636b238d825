// The products of the station, as a choice and as a list.

import { get, isLeft, part, remove, send } from "./api.js";
import { ask, failure, openDialog, toast } from "./dialog.js";
import { button, el, fill } from "./dom.js";
import { bytes, dayAndTime, t, tn } from "./texts.js";

/** The names of the products. */
export async function productNames(signal) {
  return (await get("/api/products", { signal })).map((one) => one.name);
}

/**
 * A choice of product.
 *
 * @param names Those to choose from.
 * @param chosen The one that is chosen; empty for any.
 * @param anyText What choosing none is called.
 * @param onChoice Called with the chosen name; empty for any.
 */
export function productChoice(names, chosen, anyText, onChoice) {
  const known = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  const select = el(
    "select",
    {},
    el("option", { value: "" }, anyText),
    known.map((name) => el("option", { value: name, selected: name === chosen }, name)),
  );
  select.addEventListener("change", () => onChoice(select.value));
  return el("label", { class: "field" }, el("span", {}, t("product")), select);
}

/**
 * The list of products, with those that can be had back.
 *
 * @param place The element that it is shown in.
 * @param signal Ends asking.
 * @returns Shows it anew.
 */
export function productList(place, signal) {
  async function show() {
    try {
      const [products, deleted] = await Promise.all([get("/api/products", { signal }), get("/api/deleted", { signal })]);
      fill(
        place,
        el("h2", {}, tn("products.title", products.length)),
        products.length ? el("ul", { class: "rows" }, products.map(entry)) : el("p", { class: "faint" }, t("products.none")),
        deleted.length ? deletedList(deleted) : null,
      );
    } catch (error) {
      if (!isLeft(error)) fill(place, failure(error));
    }
  }

  function entry(product) {
    const link = el("a", { href: `#/teach/${part(product.name)}`, class: "row-link" }, product.name);
    const about = el("span", { class: "faint" }, `${dayAndTime(1000 * product.changed)} · ${bytes(product.bytes)}`);
    if (product.baseline !== null) {
      const method = el("span", { class: "faint" }, t("products.baseline", { method: product.baseline }));
      return el("li", {}, el("span", { class: "row-text" }, link, about), method);
    }
    const deletion = button(t("delete"), () => deleteProduct(product.name).then((done) => done && show()), "quiet", {
      "aria-label": t("products.delete", { name: product.name }),
    });
    return el("li", {}, el("span", { class: "row-text" }, link, about), deletion);
  }

  function deletedList(deleted) {
    const entries = deleted.map((one) =>
      el(
        "li",
        {},
        el("span", { class: "row-text" }, one.product),
        button(t("restore"), () => restore(one).then(show), "quiet", { "aria-label": t("products.restore", { name: one.product }) }),
      ),
    );
    return el("details", {}, el("summary", {}, tn("products.deleted", deleted.length)), el("ul", { class: "rows" }, entries));
  }

  async function deleteProduct(name) {
    if (!(await ask(t("products.delete_title", { name }), el("p", {}, t("products.delete_text")), t("delete"), "danger"))) return false;
    try {
      const deleted = await remove(`/api/products/${part(name)}`);
      toast(t("products.deleted_one", { name }), { text: t("restore"), run: () => restore(deleted).then(show) });
      return true;
    } catch (error) {
      openDialog(t("error.title"), failure(error));
      return false;
    }
  }

  show();
  return show;
}

async function restore(deleted) {
  try {
    await send(`/api/deleted/${part(deleted.id)}/restore`);
    toast(t("products.restored", { name: deleted.product }));
  } catch (error) {
    openDialog(t("error.title"), [failure(error)]);
  }
}
