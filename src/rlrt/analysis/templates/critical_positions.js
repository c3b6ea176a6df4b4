"use strict";
// Texts are only ever set as textContent, so that no response becomes markup.
const LEAST = 200, MOST = 600; // tokens of a block; it ends with a line, or where it is full
const WARM = "213 94 0", COLD = "0 114 178", DEEPEST = 0.75; // ink stays readable on it
const NAMES = { divergence: "D̄", ratio: "D̂", credit: "credit − advantage" };

const unpack = (text) =>
  new Float32Array(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);

const make = (parent, kind, name, text) => {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};

const sections = document.querySelectorAll("section");
const responses = JSON.parse(document.getElementById("data").textContent).map((raw, number) => {
  const values = {};
  for (const name of ["divergence", "ratio", "student", "credit"]) values[name] = unpack(raw[name]);
  values.weight = values.credit.map((credit) => credit - raw.advantage);
  return {
    values,
    texts: raw.texts,
    critical: raw.critical,
    order: Object.keys(raw.critical).map(Number).sort((a, b) => a - b),
    box: sections[number].querySelector(".tokens"),
    canvas: sections[number].querySelector("canvas"),
    details: sections[number].querySelector("details"),
    spans: [],
    active: 0,
  };
});

function layOut(response) {
  const all = document.createDocumentFragment();
  let block = null, count = 0;
  response.texts.forEach((text, t) => {
    if (!block) block = make(all, "div", "block");
    const span = make(block, "span", "", text === "" ? "·" : text.replaceAll("\n", "↵\n"));
    if (text === "") span.className = "none"; // its bytes show with the next token's
    if (t in response.critical) span.classList.add("critical");
    span.place = [response, t];
    response.spans.push(span);
    count += 1;
    if (count >= MOST || (count >= LEAST && text.endsWith("\n"))) [block, count] = [null, 0];
  });
  response.box.append(all);
  response.active = response.order.length
    ? response.order.reduce((best, t) =>
        response.values.divergence[t] > response.values.divergence[best] ? t : best)
    : 0;
}

// ---- shading: the same scale for all responses of the page, square roots, so that small ones show
let measure = "divergence", largest = 1;
const column = (response) => response.values[measure === "credit" ? "weight" : measure];
const color = (value) => {
  const depth = DEEPEST * Math.sqrt(Math.min(Math.abs(value) / largest, 1));
  return depth > 0.01 ? `rgb(${value < 0 ? COLD : WARM} / ${(100 * depth).toFixed(0)}%)` : "";
};

function shade(name) {
  measure = name;
  largest = 0;
  for (const response of responses)
    for (const value of column(response)) if (Math.abs(value) > largest) largest = Math.abs(value);
  largest ||= 1;
  for (const response of responses) {
    const values = column(response);
    response.spans.forEach((span, t) => { span.style.background = color(values[t]); });
    drawStrip(response);
  }
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  make(legend, "span", "muted", NAMES[name]);
  const steps = name === "divergence" ? [0, 1, 4, 9, 16] : [-16, -4, 0, 4, 16];
  for (const step of steps) {
    const value = (largest * step) / 16;
    make(legend, "span", "", value.toPrecision(2)).style.background = color(value);
  }
}

function drawStrip(response) {
  const { canvas } = response, values = column(response), count = values.length;
  const width = (canvas.width = canvas.clientWidth || 1);
  const pen = canvas.getContext("2d");
  for (let x = 0; x < width; x += 1) {
    const from = Math.floor((x * count) / width);
    const to = Math.max(Math.floor(((x + 1) * count) / width), from + 1);
    let strongest = 0; // of the tokens below this pixel
    for (let t = from; t < to; t += 1)
      if (Math.abs(values[t]) > Math.abs(strongest)) strongest = values[t];
    pen.fillStyle = color(strongest) || "transparent";
    pen.fillRect(x, 0, 1, canvas.height);
  }
}

// ---- one tip for all tokens
const tip = document.getElementById("tip");
const number = (value, digits = 3) =>
  Number.isNaN(value) ? "–" : Math.abs(value) < 0.0005 && value !== 0
    ? value.toExponential(1) : value.toFixed(digits);

function fillTip([response, t]) {
  const { values } = response, student = values.student[t], ratio = values.ratio[t];
  tip.replaceChildren();
  const word = response.texts[t].replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  make(tip, "div", "word mono", word || "part of a character");
  const list = make(tip, "dl");
  for (const [name, text] of [
    ["position", String(t)],
    ["P_S", number(Math.exp(student))],
    ["P_T", number(Math.exp(student - ratio))],
    ["D̄", number(values.divergence[t])],
    ["D̂", number(ratio)],
    ["credit", number(values.credit[t])],
  ]) {
    make(list, "dt", "", name);
    make(list, "dd", "", text);
  }
  for (const [side, found] of Object.entries(response.critical[t] ?? {})) {
    make(tip, "div", "muted", `${side}: P_S and P_T`);
    for (const [text, mine, other] of found) {
      const row = make(tip, "div", "candidate");
      make(row, "span", "mono", text);
      for (const [kind, share] of [["bar", mine], ["bar teacher", other]]) {
        make(row, "span", kind).style.transform = `scaleX(${share})`;
        make(row, "span", "", share.toFixed(3));
      }
    }
  }
}

let shown = null;

function showTip(span) {
  shown = span;
  fillTip(span.place);
  tip.hidden = false;
  placeTip();
}

function hideTip() {
  shown = null;
  tip.hidden = true;
}

function placeTip() {
  const at = shown.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.max(Math.min(at.left, innerWidth - own.width - 8), 8);
  const below = at.bottom + 6 + own.height < innerHeight;
  const top = below ? at.bottom + 6 : Math.max(at.top - own.height - 6, 8);
  tip.style.transform = `translate(${left}px, ${top}px)`;
}

let pointer = "", waiting = null;
const moved = (event) => pointer !== (pointer = `${event.clientX} ${event.clientY}`);
document.addEventListener("pointerdown", moved);
document.addEventListener("pointermove", moved);
document.addEventListener("pointerover", (event) => {
  if (!moved(event)) return; // the page moved below a pointer at rest
  if (!waiting) requestAnimationFrame(() => { // at most once in a frame
    if (waiting?.span) showTip(waiting.span);
    else if (waiting) hideTip();
    waiting = null;
  });
  waiting = { span: event.target.place ? event.target : null };
});
addEventListener("scroll", () => {
  if (shown?.id === "active") placeTip();
  else hideTip();
}, { passive: true });

// ---- by keyboard, and from the strip and the table
function activate(response, t) {
  waiting = null; // what was pointed at a moment ago
  response.spans[response.active].classList.remove("active");
  response.spans[response.active].removeAttribute("id");
  response.active = Math.max(0, Math.min(t, response.spans.length - 1));
  const span = response.spans[response.active];
  span.classList.add("active");
  span.id = "active";
  span.setAttribute("role", "option");
  response.box.setAttribute("aria-activedescendant", "active");
  span.scrollIntoView({ block: "nearest" });
  showTip(span);
}

function goTo(response, t) {
  response.active = t;
  response.box.focus({ preventScroll: true });
  activate(response, t);
  response.spans[t].scrollIntoView({ block: "center" });
  showTip(response.spans[t]);
}

const KEYS = {
  ArrowLeft: (response) => response.active - 1,
  ArrowRight: (response) => response.active + 1,
  Home: () => 0,
  End: (response) => response.spans.length - 1,
  n: (response) => response.order.find((t) => t > response.active) ?? response.active,
  p: (response) => response.order.findLast((t) => t < response.active) ?? response.active,
};

for (const response of responses) {
  layOut(response);
  response.box.addEventListener("focus", () => activate(response, response.active));
  response.box.addEventListener("blur", () => {
    response.spans[response.active].classList.remove("active");
    response.spans[response.active].removeAttribute("id");
    hideTip();
  });
  response.box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") hideTip();
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    activate(response, KEYS[event.key](response));
  });
  response.box.addEventListener("click", (event) => {
    if (event.target.place) activate(response, event.target.place[1]);
  });
  response.canvas.addEventListener("click", (event) => {
    const share = event.offsetX / response.canvas.clientWidth;
    goTo(response, Math.floor(share * response.spans.length));
  });
  response.details.addEventListener("click", (event) => {
    if (event.target.matches("button")) goTo(response, Number(event.target.value));
  });
}
document.getElementById("controls").addEventListener("change", (event) => shade(event.target.value));
addEventListener("resize", () => responses.forEach(drawStrip));
shade("divergence");
