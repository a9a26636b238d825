"use strict";
// Every text of the data goes in as a text node; nothing is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const CIVIDIS = "#00224e #123570 #3b496c #575d6d #707173 #8a8678 #a59c74 #c3b369 #e1cc55 #fee838".split(" ");
const NONE = "\u2013";
const state = { setting: "", shots: "", dataset: "", figure: "", columns: "datasets", shared: false, search: "",
  sort: "", descending: true, category: "", method: "" };
const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const unique = (values) => [...new Set(values)];
const byDataset = () => state.columns === "datasets";
const figure = () => data.figures.find((f) => f.name === state.figure);
const cost = (name) => data.figures.find((f) => f.name === name);

// The rows of the selected setting and support, averaged over categories or not.
function rowsOf(byCategory, dataset) {
  const rows = state.shared ? data.shared : data.rows;
  return rows.filter((row) => row.setting === state.setting && row.shots === state.shots
    && (row.category !== null) === byCategory && (dataset === undefined || row.dataset === dataset));
}

// Cells are [mean, text, marks, best, draws, pairs, of, interval].
function tip(cell, shown) {
  const parts = [`${cell[1]} ${shown.unit}`, `${cell[5]} of ${cell[6]} jobs`, `draws: ${cell[4]}`];
  if (cell[7]) parts.push(`95% interval ${cell[7]}`);
  for (const mark of cell[2]) parts.push(data.notes[mark]);
  return parts.join("; ");
}

// Without a figure, as of published cells, there are no jobs to tell of.
function cellNode(cell, shown) {
  if (!cell) return el("td", {}, NONE);
  const marks = cell[2] ? el("span", { class: "mark" }, cell[2]) : null;
  return el("td", shown ? { title: tip(cell, shown) } : {}, cell[3] ? el("b", {}, cell[1]) : cell[1], marks);
}

function options(select, entries, current) {
  select.replaceChildren(...entries.map(([value, label]) => el("option", { value }, label)));
  const values = entries.map(([value]) => value);
  select.value = values.includes(current) ? current : values[0] ?? "";
  return select.value;
}

// ---- choice -------------------------------------------------------------------------------------------------------
function choose() {
  state.setting = options($("setting"), unique(data.rows.map((r) => r.setting)).map((s) => [s, s]), state.setting);
  const shots = unique(data.rows.filter((r) => r.setting === state.setting).map((r) => r.shots));
  state.shots = options($("shots"), shots.map((s) => [s, s === "full" ? "all good" : `K = ${s}`]), state.shots);
  const datasets = unique(data.rows.filter((r) => r.setting === state.setting && r.shots === state.shots)
    .map((r) => r.dataset));
  state.dataset = options($("dataset"), datasets.map((d) => [d, d]), state.dataset);
  state.figure = options($("figure"), data.figures.map((f) => [f.name, `${f.label} (${f.unit})`]), state.figure);
}

// ---- scatter ------------------------------------------------------------------------------------------------------
function logTicks(low, high) {
  const ticks = [], digits = high / low < 12 ? [1, 2, 3, 4, 5, 6, 8] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of digits) ticks.push(digit * 10 ** power);
  }
  return ticks.filter((t) => t >= low * 0.999 && t <= high * 1.001);
}

function linearTicks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999), ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

function drawScatter() {
  const box = $("scatter"), shown = figure();
  const points = rowsOf(false, state.dataset).filter((r) => r.cells[shown.name] && r.cells.ms?.[0] > 0)
    .map((r) => ({ name: r.method, x: r.cells.ms[0], y: r.cells[shown.name][0], cell: r.cells[shown.name],
      ms: r.cells.ms })).sort((a, b) => a.x - b.x);
  if (!points.length) return box.replaceChildren(el("p", {}, `No method has ${shown.label} and a latency here.`));
  const width = Math.max(280, box.clientWidth), height = width < 520 ? 300 : 400;
  const left = 52, right = width - 14, top = 12, bottom = height - 44, percent = shown.unit === "%";
  const low = { x: points[0].x / 1.4, y: Math.min(...points.map((p) => p.y)) };
  const high = { x: points.at(-1).x * 1.4, y: Math.max(...points.map((p) => p.y)) };
  const room = (high.y - low.y || Math.abs(high.y) || 1) * 0.08;
  low.y -= room;
  high.y = percent ? Math.min(high.y + room, Math.max(1, high.y)) : high.y + room;
  const px = (x) => left + (right - left) * Math.log(x / low.x) / Math.log(high.x / low.x);
  const py = (y) => bottom - (bottom - top) * (y - low.y) / (high.y - low.y);
  const number = (value) => String(Number((percent ? 100 * value : value).toPrecision(6)));
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group",
    "aria-label": `${shown.label} against latency` });
  for (const t of logTicks(low.x, high.x)) {
    node.append(svg("line", { class: "grid", x1: px(t), x2: px(t), y1: top, y2: bottom }),
      svg("text", { x: px(t), y: bottom + 17, "text-anchor": "middle" }, String(Number(t.toPrecision(3)))));
  }
  for (const t of linearTicks(low.y, high.y)) {
    node.append(svg("line", { class: "grid", x1: left, x2: right, y1: py(t), y2: py(t) }),
      svg("text", { x: left - 7, y: py(t) + 4, "text-anchor": "end" }, number(t)));
  }
  node.append(svg("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, "Latency (ms)"),
    svg("text", { transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      `${shown.label} (${shown.unit})`));
  // Points come by rising latency: one is on the front if it is better than all before it.
  const front = [];
  for (const p of points.filter((q) => !q.cell[2])) {
    const last = front.at(-1);
    if (!last || (shown.lower ? p.y < last.y : p.y > last.y)) front.push(p);
  }
  node.append(svg("polyline", { class: "front", points: front.map((p) => `${px(p.x)},${py(p.y)}`).join(" ") }));
  const bubble = el("div", { class: "tip", role: "status", hidden: "" });
  const taken = points.map((p) => [px(p.x) - 7, py(p.y) - 7, px(p.x) + 7, py(p.y) + 7]);
  for (let i = 1; i < front.length; i++) {
    const [a, b] = [front[i - 1], front[i]].map((p) => [px(p.x), py(p.y)]);
    for (let t = 0; t < 1; t += 0.02) {
      const [x, y] = [0, 1].map((k) => a[k] + (b[k] - a[k]) * t);
      taken.push([x, y, x, y]);
    }
  }
  for (const p of [...points.filter((q) => !front.includes(q)), ...front]) {
    const text = `${p.name}: ${p.cell[1]}${p.cell[2]} ${shown.unit}, ${p.ms[1]} ms`;
    const kind = `${front.includes(p) ? "best" : ""} ${p.cell[2] ? "hollow" : ""}`;
    const dot = svg("g", { class: kind, tabindex: 0, role: "img", "aria-label": text },
      ...[[5, ""], [14, "area"]].map(([r, name]) => svg("circle", { cx: px(p.x), cy: py(p.y), r, class: name })));
    const show = () => {
      bubble.textContent = text;
      bubble.hidden = false;
      bubble.style.left = `${Math.max(0, Math.min(px(p.x) - 80, width - bubble.offsetWidth))}px`;
      bubble.style.top = `${py(p.y) + 14}px`;
    };
    for (const event of ["mouseenter", "focus"]) dot.addEventListener(event, show);
    for (const event of ["mouseleave", "blur"]) dot.addEventListener(event, () => { bubble.hidden = true; });
    node.append(dot);
  }
  box.replaceChildren(node, bubble);
  // Names where there is room: those on the front first.
  for (const p of [...front, ...points.filter((q) => !front.includes(q))]) {
    const name = svg("text", { class: "name" }, p.name.length > 26 ? `${p.name.slice(0, 25)}\u2026` : p.name);
    node.append(name);
    const w = name.getComputedTextLength(), x = px(p.x), y = py(p.y);
    const spots = [[x + 10, y - 8], [x + 10, y + 16], [x - 10 - w, y - 8], [x - 10 - w, y + 16]];
    const free = spots.map(([a, b]) => [a, b - 11, a + w, b + 3]).find((r) => r[0] >= left && r[2] <= width
      && r[1] >= 0 && r[3] <= bottom && taken.every((t) => r[2] < t[0] || r[0] > t[2] || r[3] < t[1] || r[1] > t[3]));
    if (!free) { name.remove(); continue; }
    taken.push(free);
    name.setAttribute("x", free[0]);
    name.setAttribute("y", free[3] - 3);
  }
}

// ---- heatmap ------------------------------------------------------------------------------------------------------
function color(share) {
  const at = Math.max(0, Math.min(1, share)) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const rgb = [1, 3, 5].map((k) => {
    const [a, b] = [CIVIDIS[i], CIVIDIS[i + 1]].map((c) => parseInt(c.slice(k, k + 2), 16));
    return Math.round(a + (b - a) * (at - i));
  });
  const light = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2] > 120;
  return { background: `rgb(${rgb.join(",")})`, text: light ? "#000" : "#fff" };
}

function drawHeat() {
  const shown = figure(), rows = rowsOf(true, state.dataset).filter((r) => r.cells[shown.name]);
  const values = rows.map((r) => r.cells[shown.name][0]);
  if (!values.length) {
    $("legend").replaceChildren();
    return $("heat").replaceChildren(el("caption", {}, `No method has ${shown.label} here.`));
  }
  let low = Math.min(...values), high = Math.max(...values);
  if (shown.unit === "%") {
    low = Math.floor(low * 10 + 1e-9) / 10;
    high = Math.ceil(high * 10 - 1e-9) / 10;
  }
  const share = (v) => (high > low ? (v - low) / (high - low) : 1);
  const ends = [low, high].map((v) => (shown.unit === "%" ? (100 * v).toFixed(0) : Number(v.toPrecision(3))));
  const strip = el("i", {});
  strip.style.background = `linear-gradient(to right, ${CIVIDIS.join(", ")})`;
  $("legend").replaceChildren(`${shown.label}: ${ends[0]}`, strip, `${ends[1]} ${shown.unit}`,
    shown.lower ? " (less is better)" : " (more is better)");
  const categories = unique(rows.map((r) => r.category));
  const means = new Map(rowsOf(false, state.dataset).map((r) => [r.method, r.cells[shown.name]]));
  const sign = shown.lower ? 1 : -1;
  const methods = unique(rows.map((r) => r.method)).sort((a, b) => sign * (means.get(a)[0] - means.get(b)[0]));
  const head = ["Method", "Mean", ...categories].map((c) => el("th", { scope: "col" }, c));
  const body = methods.map((method) => {
    const cells = categories.map((c) => rows.find((r) => r.method === method && r.category === c)?.cells[shown.name]);
    return el("tr", {}, el("th", { scope: "row" }, method), ...[means.get(method), ...cells].map((cell) => {
      if (!cell) return el("td", { title: "no figure" }, NONE);
      const { background, text } = color(share(cell[0]));
      const td = el("td", { title: tip(cell, shown) }, cell[1].split(" ")[0] + cell[2]);
      td.style.background = background;
      td.style.color = text;
      return td;
    }));
  });
  $("heat").replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

// ---- bars ---------------------------------------------------------------------------------------------------------
function track(parts) {
  return el("div", { class: "track" }, ...parts.map(([share, kind]) => {
    const bar = el("i", { class: kind });
    bar.style.width = `${100 * share}%`;
    return bar;
  }));
}

function drawBars(id, name) {
  const rows = rowsOf(false, state.dataset).filter((r) => r.cells[name]?.[0] > 0)
    .sort((a, b) => a.cells[name][0] - b.cells[name][0]);
  if (!rows.length) return $(id).replaceChildren(el("p", {}, "Nothing on record."));
  const floor = 10 ** Math.floor(Math.log10(rows[0].cells[name][0]) - 1e-9), high = rows.at(-1).cells[name][0];
  const unit = cost(name).unit;
  const nodes = rows.flatMap((r) => [el("span", { class: "label" }, r.method),
    track([[Math.log(r.cells[name][0] / floor) / Math.log(high / floor), ""]]),
    el("span", { class: "value", title: tip(r.cells[name], cost(name)) },
      `${r.cells[name][1].split(" ")[0]} ${unit}${r.cells[name][2]}`)]);
  $(id).replaceChildren(...nodes, el("span", {}), el("span", { class: "axis" }, `${floor} ${unit}`));
}

// Of what the local copy has where that is on record, and of what was tested where not.
function drawCounts() {
  const rows = data.counts.filter((c) => c.setting === state.setting && c.shots === state.shots
    && c.dataset === state.dataset);
  const kinds = ["train", "validation", "good", "defective"];
  const parts = (c) => c.copy ?? [0, 0, c.good, c.defective];
  const most = Math.max(1, ...rows.map((c) => parts(c).reduce((a, b) => a + b)));
  $("counts").replaceChildren(...rows.flatMap((c) => [el("span", { class: "label" }, c.category),
    track(parts(c).map((n, i) => [n / most, kinds[i]]).filter(([share]) => share > 0)),
    el("span", { class: "value", title: `tested: ${c.good} good, ${c.defective} defective` },
      parts(c).filter((n, i) => c.copy ? i !== 1 || n : i > 1).join(" + "))]));
  const known = rows.some((c) => c.copy);
  $("counts-copy").hidden = !known;
  $("counts-validation").hidden = !rows.some((c) => c.copy?.[1]);
  $("counts-tested").textContent = rows.every((c) => c.copy) ? "" : known
    ? "Where no training images are shown, those that were tested." : "Those that were tested.";
}

// ---- pictures -----------------------------------------------------------------------------------------------------
function drawPictures() {
  const here = data.pictures.filter((p) => p.setting === state.setting && p.shots === state.shots
    && p.dataset === state.dataset);
  const categories = unique(here.map((p) => p.category)).map((c) => [c, c]);
  state.category = options($("picture-category"), categories, state.category);
  const all = [["", "all methods"], ...unique(here.map((p) => p.method)).map((m) => [`:${m}`, m])];
  state.method = options($("picture-method"), all, state.method);
  const visible = here.filter((p) => p.category === state.category && (!state.method || `:${p.method}` === state.method));
  $("pictures").replaceChildren(...visible.map((p) => el("figure", {}, el("img", { src: p.source, loading: "lazy",
    alt: `${p.category} as ${p.method} sees it: image, ground truth and anomaly map` }),
    el("figcaption", {}, `${p.method}, draw ${p.draw}`))));
  if (!visible.length) $("pictures").replaceChildren(el("p", {}, "No pictures are on record here."));
}

function drawOnce() {
  $("tiles").append(...data.summary.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))));
  list("runs", ["What", "Value", "Records"], data.runs);
  list("methods", ["Method", "Baseline", "Options", "Differs from the published method in"], data.methods);
  list("failed", ["Job", "Reason"], data.failed);
  list("published", ["Method", "Dataset", "Setting", "Support", "Figures", "Source", "Note"], data.published.map((p) =>
    [p.method, p.dataset, p.setting, p.shots,
      Object.entries(p.figures).map(([n, f]) => `${p.labels[n]} ${f[1]}`).join(", "), p.source, p.note]));
  $("s-failed").hidden = !data.failed.length;
  $("s-published").hidden = !data.published.length;
  $("s-pictures").hidden = !data.pictures.length;
  $("shared-label").hidden = !data.shared;
  $("pictures-left").textContent = data.picturesLeft;
}

function draw() {
  choose();
  drawTable();
  drawScatter();
  drawHeat();
  drawBars("fit", "fit_s");
  drawBars("size", "model_mb");
  drawCounts();
  drawPictures();
}

for (const id of ["setting", "shots", "dataset", "figure", "columns"]) {
  $(id).addEventListener("change", () => {
    state[id] = $(id).value;
    if (id === "figure" || id === "columns") state.sort = "";
    draw();
  });
}
$("shared").addEventListener("change", () => { state.shared = $("shared").checked; draw(); });
$("search").addEventListener("input", () => { state.search = $("search").value; drawTable(); });
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["category", "method"]) {
  $(`picture-${id}`).addEventListener("change", () => { state[id] = $(`picture-${id}`).value; drawPictures(); });
}
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
const nameTheme = () => { $("theme").textContent = theme() === "dark" ? "Light" : "Dark"; };
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();
document.querySelector("main").hidden = false;
drawOnce();
if (unique(data.rows.map((r) => r.dataset)).length < 2) state.columns = $("columns").value = "categories";
draw();
addEventListener("resize", drawScatter);
