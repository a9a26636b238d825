"use strict";
// Tables that a click on a head sorts and a word searches. Goes before report_page.js, into the same script.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

// Lines by their values, texts as a reader would order them; those without a value come last either way.
function ordered(lines, value, descending) {
  const sign = descending ? -1 : 1;
  return lines.map((line) => [value(line), line]).sort(([x], [y]) => {
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (typeof x === "string" ? collator.compare(x, y) : x - y);
  }).map(([, line]) => line);
}

const matches = (text, search) => text.toLowerCase().includes(search.trim().toLowerCase());

// Sort of a table: { sort, descending }; `redraw` is called when a head is pressed, `lower` says what comes lowest first.
function sortHead(table, columns, order, redraw, lower, kind) {
  const press = (key) => {
    order.descending = order.sort === key ? !order.descending : !lower(key);
    order.sort = key;
    redraw();
    // The old button went with the old head; the keyboard stays where it was.
    [...table.querySelectorAll("thead button")].find((b) => b.dataset.key === key).focus();
  };
  return el("thead", {}, el("tr", {}, ...columns.map(([key, name]) => el("th", { scope: "col", class: kind,
    "aria-sort": key !== order.sort ? "none" : order.descending ? "descending" : "ascending" },
    el("button", { type: "button", "data-key": key, onclick: () => press(key) }, name)))));
}

// ---- list of texts ------------------------------------------------------------------------------------------------
function list(id, head, lines) {
  // As they come, until a head is pressed.
  const order = { sort: "", descending: false }, table = el("table", {}), count = el("output", {});
  const search = el("input", { type: "search", autocomplete: "off" });
  const redraw = () => {
    const visible = lines.filter((line) => matches(line.join(" "), search.value));
    const shown = order.sort ? ordered(visible, (line) => line[order.sort], order.descending) : visible;
    const columns = head.map((name, i) => [String(i), name]);
    table.replaceChildren(sortHead(table, columns, order, redraw, () => true, "text"), el("tbody", {},
      ...shown.map((line) => el("tr", {}, ...line.map((text) => el("td", { class: "text" }, text))))));
    count.textContent = `${visible.length} of ${lines.length} rows`;
  };
  search.addEventListener("input", redraw);
  redraw();
  const bar = lines.length > 1 ? el("div", { class: "bar" }, el("label", {}, "Search ", search), count) : null;
  fill($(id), {}, [bar, el("div", { class: "scroll" }, table)]);
}

// ---- table of methods ---------------------------------------------------------------------------------------------
function tableModel() {
  const averages = rowsOf(false), shown = figure(), methods = new Map();
  const entry = (method) => {
    if (!methods.has(method)) methods.set(method, { method, cells: Object.create(null), done: 0, of: 0 });
    return methods.get(method);
  };
  // The column of the mean has the empty name, which no category has.
  let columns = byDataset() ? unique(averages.map((r) => r.dataset)) : [""];
  for (const row of averages.filter((r) => byDataset() || r.dataset === state.dataset)) {
    const one = entry(row.method), column = byDataset() ? row.dataset : "";
    one.cells[column] = row.cells[shown.name];
    one.asPublished = row.asPublished;
    one.done += row.done;
    one.of += row.of;
    if (row.dataset === state.dataset) one.ms = row.cells.ms;
  }
  if (!byDataset()) {
    const rows = rowsOf(true, state.dataset);
    columns = columns.concat(unique(rows.map((r) => r.category)));
    for (const row of rows) entry(row.method).cells[row.category] = row.cells[shown.name];
  }
  const lines = [...methods.values()];
  for (const p of data.published.filter((q) => q.setting === state.setting && q.shots === state.shots)) {
    const column = byDataset() ? p.dataset : p.dataset === state.dataset ? "" : null;
    if (!columns.includes(column) || !(shown.name in p.figures)) continue;
    const [mean, text] = p.figures[shown.name];
    const cells = { [column]: [mean, text, ""] };
    for (const [category, figures] of byDataset() ? [] : Object.entries(p.categories)) {
      if (shown.name in figures) cells[category] = [...figures[shown.name], ""];
    }
    lines.push({ method: p.method, published: p, cells });
  }
  return { lines, columns, shown };
}

function sortValue(line, key) {
  if (key === "method") return line.method;
  if (key === "jobs") return line.of ? line.done / line.of : undefined;
  return (key === "latency" ? line.ms : line.cells[key.slice(1)])?.[0];
}

function drawTable() {
  const { lines, columns, shown } = tableModel();
  // A column's key has a sign before its name, so that no dataset can be called like a fixed column.
  const keys = ["method", ...columns.map((c) => `:${c}`), "jobs", ...(shown.name === "ms" ? [] : ["latency"])];
  if (!keys.includes(state.sort)) {
    state.sort = byDataset() ? `:${state.dataset}` : ":";
    state.descending = !shown.lower;
  }
  const names = { method: "Method", jobs: "Jobs", latency: "Latency (ms)", ":": "Mean" };
  const lower = (key) => key === "method" || key === "latency" || (key !== "jobs" && shown.lower);
  const head = sortHead($("table"), keys.map((key) => [key, names[key] ?? key.slice(1)]), state, drawTable, lower, "");
  const visible = ordered(lines, (line) => sortValue(line, state.sort), state.descending)
    .filter((line) => matches(line.method, state.search));
  const body = visible.map((line) => {
    const row = [el("th", { scope: "row" }, line.method,
      el("small", {}, line.published ? `published: ${line.published.source}` : `as published: ${line.asPublished}`))];
    for (const column of columns) row.push(cellNode(line.cells[column], line.published ? null : shown));
    const short = line.done < line.of;
    row.push(el("td", {}, line.published ? NONE : `${line.done}/${line.of}`,
      short ? el("span", { class: "mark" }, data.incomplete) : null));
    if (keys.includes("latency")) row.push(cellNode(line.ms, cost("ms")));
    return el("tr", line.published ? { class: "published", title: line.published.note } : {}, ...row);
  });
  const over = byDataset() ? "by dataset" : `on ${state.dataset} by category`;
  $("h-table").textContent = `${shown.label} (${shown.unit}) ${over}`;
  $("table").replaceChildren(head, el("tbody", {}, ...body));
  $("found").textContent = `${visible.length} of ${lines.length} rows`;
  const marks = lines.flatMap((line) => Object.values(line.cells).flatMap((cell) => [...(cell?.[2] ?? "")]));
  if (lines.some((line) => line.done < line.of)) marks.push(data.incomplete);
  const notes = Object.keys(data.notes).filter((mark) => marks.includes(mark)).map((m) => `${m} ${data.notes[m]}`);
  if (data.decided.includes(shown.name)) notes.push(data.howDecided);
  for (const t of data.extents) {
    const here = t.setting === state.setting && t.shots === state.shots && (byDataset() || t.dataset === state.dataset);
    if (here && t.text) notes.push(byDataset() ? `${t.dataset}. ${t.text}` : t.text);
  }
  notes.push(data.how, `Latency is that on ${state.dataset}. Bold: best of the column.`);
  $("notes").replaceChildren(...notes.map((note) => el("p", {}, note)));
}
