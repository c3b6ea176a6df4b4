"use strict";
// Text of runs enters the page by textContent alone.
const data = JSON.parse(document.getElementById("data").textContent);
for (const curve of data.charts.flatMap((chart) => chart.curves)) curve.x = data.steps[curve.x];
const tip = document.getElementById("tip");
const hidden = new Set();
let smoothing = 1;

function html(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}
function svg(tag, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}
function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return value;
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2)
    : value.toLocaleString("en", size >= 1e4 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 });
  return text.replaceAll("-", "−");
}
function mark(run) {
  const { color, dash } = data.runs[run];
  const made = svg("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" });
  svg("line", { class: `line c${color} d${dash}`, x1: 1, y1: 5, x2: 25, y2: 5 }, made);
  return made;
}

// ---- the box beside the pointer -------------------------------------------------------------
function showTip(rows, head, x, y) {
  const table = html("table");
  for (const [name, value, run] of rows) {
    const row = html("tr"), first = html("th");
    if (run !== undefined) first.append(mark(run), " ");
    first.append(html("bdi", "", name));
    row.append(first, html("td", "", value));
    table.append(row);
  }
  tip.replaceChildren(html("div", "head", head), table);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 18 + box.width > innerWidth ? x - 18 - box.width : x + 18;
  const top = y + 18 + box.height > innerHeight ? y - 14 - box.height : y + 18;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}
function hideTip() { tip.hidden = true; }
addEventListener("scroll", hideTip, { passive: true });

// ---- curves ---------------------------------------------------------------------------------
function smoothed(curve, steps) {
  // trailing mean over the last `steps` rollout steps; the points of a thinned curve stay as they are
  if (steps < 2 || curve.thinned) return null;
  const out = [];
  let sum = 0, count = 0, from = 0;
  for (let i = 0; i < curve.x.length; i++) {
    if (typeof curve.y[i] === "number") { sum += curve.y[i]; count++; }
    for (; curve.x[from] <= curve.x[i] - steps; from++)
      if (typeof curve.y[from] === "number") { sum -= curve.y[from]; count--; }
    out.push(count ? sum / count : null);
  }
  return out;
}
function niceTicks(low, high, wanted) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.7);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step + 0); // + 0: there is no −0
  return ticks;
}
function logTicks(low, high) {
  const from = Math.ceil(low - 1e-9), to = Math.floor(high + 1e-9), every = Math.ceil((to - from + 1) / 5);
  const ticks = [];
  for (let i = from; i <= to; i += every) ticks.push(i);
  return ticks;
}
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
}
function path(xs, ys, px, py) {
  let text = "", pen = "M";
  for (let i = 0; i < xs.length; i++) {
    if (ys[i] === null) { pen = "M"; continue; }
    text += `${pen}${px(xs[i]).toFixed(1)} ${py(ys[i]).toFixed(1)}`;
    pen = "L";
  }
  return text;
}
function draw(figure) {
  const chart = data.charts[figure.dataset.chart], plot = figure.querySelector(".plot");
  const W = plot.clientWidth, H = 200, left = 54, right = 12, top = 10, bottom = 24;
  if (W < 60) return;
  const height = (v) => (typeof v !== "number" ? null : chart.log ? (v > 0 ? Math.log10(v) : null) : v);
  const curves = chart.curves.filter((curve) => !hidden.has(curve.run));
  const ys = curves.map((curve) => curve.y.map(height));
  const xs = curves.flatMap((curve) => [curve.x[0], curve.x[curve.x.length - 1]]);
  let [low, high] = extent(ys.flat().filter((v) => v !== null).concat(curves.length ? chart.limits.map(height) : []));
  let [x0, x1] = extent(xs);
  if (!(low <= high)) [low, high] = [0, 1];
  if (!(x0 <= x1)) [x0, x1] = [0, 1];
  if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
  if (low === high && low === 0) high = 1;
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.05;
  [low, high] = [low - pad, high + pad];
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (W - left - right);
  const py = (y) => H - bottom - ((y - low) / (high - low)) * (H - top - bottom);
  const names = curves.map((c) => data.runs[c.run].name).join(", ");
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0,
    "aria-label": `${chart.title} over rollout steps: ${names || "no run shown"}. Arrow keys read values.` });
  for (const y of chart.log ? logTicks(low, high) : niceTicks(low, high, 5)) {
    svg("line", { class: "grid", x1: left, x2: W - right, y1: py(y), y2: py(y) }, root);
    const text = chart.log ? `1e${y}`.replace("-", "−") : formatNumber(Math.abs(y) < (high - low) * 1e-9 ? 0 : y);
    svg("text", { x: left - 7, y: py(y) + 4, "text-anchor": "end" }, root, text);
  }
  for (const x of niceTicks(x0, x1, Math.max(3, W / 55)))
    if (Number.isInteger(x)) svg("text", { x: px(x), y: H - 6, "text-anchor": "middle" }, root, formatNumber(x));
  svg("line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom }, root);
  for (const limit of curves.length ? chart.limits : []) {
    const y = py(height(limit));
    svg("line", { class: "limit", x1: left, x2: W - right, y1: y, y2: y }, root);
    svg("text", { class: "limit-text", x: W - right, y: y + 14, "text-anchor": "end" }, root, `limit ${formatNumber(limit)}`);
  }
  const calm = curves.map((curve, i) => (chart.smooth ? smoothed({ ...curve, y: ys[i] }, smoothing) : null));
  curves.forEach((curve, i) => calm[i] && // all of them below the smooth ones
    svg("path", { class: `line raw c${data.runs[curve.run].color}`, d: path(curve.x, ys[i], px, py) }, root));
  curves.forEach((curve, i) => {
    const { color, dash } = data.runs[curve.run];
    svg("path", { class: `line c${color} d${dash}`, d: path(curve.x, calm[i] || ys[i], px, py) }, root);
    if (curve.x.length <= 30)
      curve.x.forEach((x, j) => ys[i][j] !== null && svg("circle", { class: `dot c${color}`, cx: px(x), cy: py(ys[i][j]), r: 3.2 }, root));
    curve.x.forEach((x, j) => typeof curve.y[j] === "string" &&
      svg("path", { class: "odd", d: `M${px(x) - 3} ${top - 6}l6 6m0-6l-6 6` }, root));
  });
  plot.replaceChildren(root);
  readable(root, chart, curves, { px, py, height, W, H, top, bottom });
}
function readable(root, chart, curves, { px, py, height, W, H, top, bottom }) {
  const steps = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  if (!steps.length) return;
  const where = curves.map((curve) => new Map(curve.x.map((x, i) => [x, curve.y[i]])));
  const cross = svg("g", { visibility: "hidden" }, root);
  let at = -1;
  function read(number, x, y) {
    at = Math.max(0, Math.min(steps.length - 1, number));
    const step = steps[at];
    cross.replaceChildren();
    cross.setAttribute("visibility", "visible");
    svg("line", { class: "cross", x1: px(step), x2: px(step), y1: top, y2: H - bottom }, cross);
    const rows = [];
    curves.forEach((curve, i) => {
      if (!where[i].has(step)) return;
      const value = where[i].get(step);
      if (height(value) !== null)
        svg("circle", { class: `dot c${data.runs[curve.run].color}`, cx: px(step), cy: py(height(value)), r: 4 }, cross);
      rows.push([data.runs[curve.run].name, formatNumber(value), curve.run]);
    });
    showTip(rows, `${chart.title} · step ${formatNumber(step)}`, x, y);
  }
  function leave() { cross.setAttribute("visibility", "hidden"); hideTip(); }
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * W;
    let low = 0, high = steps.length - 1; // the first step not left of the pointer
    while (low < high) { const middle = (low + high) >> 1; if (px(steps[middle]) < x) low = middle + 1; else high = middle; }
    if (low > 0 && x - px(steps[low - 1]) < px(steps[low]) - x) low--;
    read(low, event.clientX, event.clientY);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: steps.length - 1 };
    if (event.key === "Escape") return leave();
    if (!(event.key in moves)) return;
    event.preventDefault();
    const box = root.getBoundingClientRect(), number = Math.max(0, Math.min(steps.length - 1, moves[event.key]));
    read(number, box.left + (px(steps[number]) / W) * box.width, box.top + box.height / 2);
  });
}
const figures = [...document.querySelectorAll("figure[data-chart]")];
const seen = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target.closest("figure"))));
for (const figure of figures) seen.observe(figure.querySelector(".plot")); // also when its <details> opens
function drawAll() { figures.forEach(draw); }

// ---- which runs, how smooth -----------------------------------------------------------------
for (const button of document.querySelectorAll("button.run")) {
  button.addEventListener("click", () => {
    const run = Number(button.dataset.run), show = hidden.delete(run);
    if (!show) hidden.add(run);
    button.setAttribute("aria-pressed", String(show));
    for (const sample of document.querySelectorAll(`.sample[data-of="${run}"]`)) sample.hidden = !show;
    drawAll();
  });
}
const smooth = document.getElementById("smooth");
smooth.addEventListener("change", () => { smoothing = Number(smooth.value); drawAll(); });
const longest = Math.max(0, ...data.charts.flatMap((c) => (c.smooth ? c.curves.map((curve) => curve.x.length) : [])));
smooth.value = longest >= 300 ? "25" : longest >= 60 ? "5" : "1";
smoothing = Number(smooth.value);
document.querySelector(".tools").hidden = false;

// ---- tokens ---------------------------------------------------------------------------------
const number = (v) => (typeof v === "number" ? v : null);
const difference = (a, b) => (number(a) === null || number(b) === null ? null : a - b);
const MODES = {
  credit: ["credit", (s, i) => number(s.tokens.credit?.[i]), 0],
  weight: ["credit ÷ advantage", (s, i) => (number(s.advantage) && number(s.tokens.credit?.[i]) !== null ? s.tokens.credit[i] / s.advantage : null), 1],
  teacher: ["teacher − student", (s, i) => difference(s.tokens.teacher_logprobs?.[i], s.tokens.student_logprobs?.[i]), 0],
  distillation: ["distillation", (s, i) => number(s.tokens.distillation?.[i]), 0],
  surprise: ["−log P student", (s, i) => (number(s.tokens.student_logprobs?.[i]) === null ? null : -s.tokens.student_logprobs[i]), 0],
};
const samples = data.samples.filter((sample) => sample.tokens);
function values(mode) {
  return samples.flatMap((s) => s.tokens.text.map((_, i) => MODES[mode][1](s, i))).filter((v) => v !== null);
}
function scaleOf(mode) {
  // the 99th percentile of the distance from the neutral value: one odd token must not pale all others
  const away = values(mode).map((v) => Math.abs(v - MODES[mode][2])).filter((v) => v > 0).sort((a, b) => a - b);
  return away.length ? away[Math.floor((away.length - 1) * 0.99)] : 0;
}
function lay(box, sample) {
  const { tokens } = sample, parts = [];
  tokens.text.forEach((text, i) => {
    if (tokens.skipped && i === tokens.head)
      parts.push(html("span", "gap", `${tokens.skipped.toLocaleString("en")} tokens are not shown`));
    const token = html("span", "t");
    token.dataset.i = i;
    for (const part of (text || "∅").split(/([\n\t])/)) {
      if (part === "\n" || part === "\t") token.append(html("span", "sign", part === "\n" ? "↵" : "⇥"));
      if (part) token.append(part);
    }
    parts.push(token);
  });
  box.replaceChildren(...parts);
}
function shade(mode) {
  const [, value, neutral] = MODES[mode], scale = scaleOf(mode);
  for (const box of document.querySelectorAll(".tokens.whole")) {
    const sample = data.samples[box.dataset.sample];
    for (const token of box.querySelectorAll(".t")) {
      const found = value(sample, Number(token.dataset.i)), away = found === null ? 0 : found - neutral;
      token.classList.toggle("p", away > 0);
      token.classList.toggle("m", away < 0);
      token.style.setProperty("--a", scale ? (0.6 * Math.min(1, Math.abs(away) / scale)).toFixed(3) : 0);
    }
  }
  document.querySelector(".scale .low").textContent = `≤ ${formatNumber(neutral - scale)}`;
  document.querySelector(".scale .high").textContent = `≥ ${formatNumber(neutral + scale)}`;
  for (const button of document.querySelectorAll(".modes button"))
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
}
function probability(logprob) {
  return number(logprob) === null ? "not read" : `${formatNumber(Math.exp(logprob))} (log ${formatNumber(logprob)})`;
}
function readToken(box, token) {
  const sample = data.samples[box.dataset.sample], { tokens } = sample, i = Number(token.dataset.i);
  const position = i + 1 + (i >= tokens.head ? tokens.skipped : 0);
  const rows = [
    ["P student", probability(tokens.student_logprobs?.[i])],
    ["P teacher", probability(tokens.teacher_logprobs?.[i])],
    ["teacher − student", formatNumber(MODES.teacher[1](sample, i))],
    ["entropy of the student", formatNumber(tokens.student_entropy?.[i])],
    ["credit", formatNumber(tokens.credit?.[i])],
    ["credit ÷ advantage", formatNumber(MODES.weight[1](sample, i))],
  ];
  if (tokens.distillation) rows.push(["distillation weight", formatNumber(tokens.distillation[i])]);
  for (const other of document.querySelectorAll(".t.on")) other.classList.remove("on");
  token.classList.add("on");
  const at = token.getBoundingClientRect();
  const text = tokens.text[i].replaceAll("\n", "↵").replaceAll("\t", "⇥");
  showTip(rows, `\u2068${text}\u2069  · token ${position.toLocaleString("en")}, id ${tokens.id[i]}`, at.left, at.bottom - 10);
}
for (const box of document.querySelectorAll(".tokens")) {
  if (!data.samples[box.dataset.sample].tokens) continue;
  box.classList.add("whole");
  lay(box, data.samples[box.dataset.sample]);
  const leave = () => { box.querySelector(".t.on")?.classList.remove("on"); hideTip(); };
  box.addEventListener("pointerover", (event) => {
    const token = event.target.closest(".t");
    if (token) readToken(box, token); else leave();
  });
  box.addEventListener("pointerleave", leave);
  box.addEventListener("blur", leave);
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1 }, all = box.querySelectorAll(".t");
    if (event.key === "Escape") return leave();
    if (!(event.key in moves) || !all.length) return;
    event.preventDefault();
    const on = box.querySelector(".t.on"), at = on ? Number(on.dataset.i) + moves[event.key] : 0;
    const token = all[Math.max(0, Math.min(all.length - 1, at))];
    token.scrollIntoView({ block: "nearest" });
    readToken(box, token);
  });
}
if (samples.length) {
  for (const [mode, [title]] of Object.entries(MODES)) {
    if (!values(mode).length) continue;
    const button = html("button", "", title);
    button.type = "button";
    button.dataset.mode = mode;
    button.addEventListener("click", () => shade(mode));
    document.querySelector(".modes").append(button);
  }
  document.querySelector(".shading").hidden = false;
  const varied = (mode) => { const [low, high] = extent(values(mode)); return high > low; };
  shade(["credit", "distillation", "surprise"].find(varied) || "credit");
}
