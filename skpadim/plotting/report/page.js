"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const $ = (id) => document.getElementById(id);

// ---- words and elements: what comes from the data is only ever text
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const short = (value) => String(Number(value.toPrecision(4)));
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const LABELS = { flagged: "▲ flagged", found: "▲ found", missed: "✕ missed", "false alarm": "! false alarm", passed: "✓ passed" };

// ---- threshold: on a logarithmic slider, since defects score many times what good images do
const known = [...rows.map((row) => row.score), ...(data.calibration?.scores ?? []), data.start].filter((v) => v > 0);
const extreme = (better) => known.reduce((a, b) => (better(b, a) ? b : a), known[0] ?? 1);
const high = extreme((a, b) => a > b) * 1.05;
const low = Math.max(extreme((a, b) => a < b) * 0.95, high / 1000);
const toShare = (score) => Math.min(1, Math.max(0, Math.log(Math.max(score, low) / low) / Math.log(high / low)));
const fromShare = (share) => low * (high / low) ** share;
let threshold = data.start;
let opacity = 0.55;

function verdictOf(row) {
  const flagged = row.score > threshold;
  if (!data.labelled) return flagged ? "flagged" : "passed";
  return row.good ? (flagged ? "false alarm" : "passed") : flagged ? "found" : "missed";
}

function setThreshold(value) {
  threshold = value;
  slider.value = Math.round(1000 * toShare(value));
  for (const row of rows) row.verdict = verdictOf(row);
  tell();
  placeLine();
  showVerdicts();
}

// ---- what follows from the threshold, in words and tables
const tally = (verdict) => rows.filter((row) => row.verdict === verdict).length;
const nGood = rows.filter((row) => row.good).length;
const cell = (tag, text, properties = {}) => make(tag, { ...properties, textContent: text });

function tell() {
  const found = tally("found"), missed = tally("missed"), alarms = tally("false alarm");
  const flagged = tally("flagged") + found + alarms;
  const own = threshold === data.threshold;
  $("headline").textContent = `${flagged} of ${count(rows.length, "image")} ${flagged === 1 ? "is" : "are"} flagged`;
  let text = `At the threshold ${short(threshold)}${own ? ", the model's own" : ""}. `;
  if (data.labelled) {
    text += `Of ${count(rows.length - nGood, "defective image")}, ${found} ${found === 1 ? "is" : "are"} found and ${missed} missed; `;
    text += `of ${count(nGood, "good image")}, ${alarms} ${alarms === 1 ? "is" : "are"} falsely flagged.`;
  }
  $("summary").textContent = text;
  const figures = [["Flagged", flagged, "flagged"]];
  if (data.labelled) {
    figures.push(["Missed", missed, "missed"], ["False alarms", alarms, "false alarm"]);
    figures.push(["Precision", percent(found, flagged)], ["Recall", percent(found, found + missed)]);
  }
  $("counts").replaceChildren(...figures.map(([name, value, verdict]) => {
    const figure = make("dd", { textContent: value });
    figure.dataset.count = name;
    return make("div", { className: (verdict ?? "").replace(" ", "-") }, cell("dt", name), figure);
  }));
  $("number").value = short(threshold);
  slider.setAttribute("aria-valuetext", `${short(threshold)}, ${flagged} flagged`);
  $("expected").textContent = expected();
  $("shell").textContent = data.command + threshold;
  $("python").textContent = `detector.offset_ = -${threshold}`;
  $("reset").disabled = threshold === data.start;
  tellKinds();
}

function expected() {
  if (!data.calibration) return "How many new good parts would be flagged is not known: this model has no left-out scores.";
  const { scores, shares } = data.calibration;
  const above = scores.filter((score) => score > threshold).length;
  const most = above ? "" : "at most ";
  return `Of new good parts about ${most}${percent(shares[above], 1)} would be flagged, 1 in ${Math.round(1 / shares[above])}: `
    + `${above} of the ${scores.length} good images that were left out score higher.`;
}

function tellKinds() {
  const head = make("tr", {}, ...["Kind", "Images", "Flagged", "Share"].map((text) => cell("th", text, { scope: "col" })));
  const line = (name, chosen) => {
    const flagged = chosen.filter((row) => row.score > threshold).length;
    const meter = make("i", { className: "bar" });
    meter.style.width = `${chosen.length ? (100 * flagged) / chosen.length : 0}%`;
    return make("tr", {}, cell("th", name, { scope: "row" }), cell("td", chosen.length), cell("td", flagged),
      make("td", {}, cell("span", percent(flagged, chosen.length)), make("span", { className: "track" }, meter)));
  };
  const bad = rows.filter((row) => row.good === false);
  const kinds = [...new Set(bad.map((row) => row.kind))].sort();
  const lines = kinds.map((kind) => line(kind, bad.filter((row) => row.kind === kind)));
  if (kinds.length > 1) lines.push(line("all defects (recall)", bad));
  lines.push(line("good (false alarms)", rows.filter((row) => row.good)));
  $("kinds").replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
}

// ---- histogram
const INSET = 11; // half of the slider's thumb, so that it stands below the line
const svg = (tag, attributes = {}, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
};

function drawHistogram() {
  const width = $("histogram").clientWidth, height = 190, base = height - 22, nBins = width < 500 ? 30 : 60;
  const x = (share) => INSET + share * (width - 2 * INSET);
  const bins = (scores) => scores.reduce((n, score) => (n[Math.min(nBins - 1, Math.floor(toShare(score) * nBins))]++, n), Array(nBins).fill(0));
  const good = bins(rows.filter((row) => row.good !== false).map((row) => row.score));
  const bad = bins(rows.filter((row) => row.good === false).map((row) => row.score));
  const before = data.calibration?.scores ?? [];
  const scale = (data.labelled ? nGood : rows.length) / (before.length || 1) || 1;
  const leftOut = bins(before).map((n) => n * scale);
  const top = Math.max(1, ...good.map((n, i) => n + bad[i]), ...leftOut);
  const y = (n) => base - (n / top) * (base - 14);
  const shapes = [svg("line", { x1: 0, x2: width, y1: base, y2: base, class: "axis" })];
  for (let i = 0; i < nBins; i++) {
    const bar = { x: x(i / nBins) + 0.5, width: (width - 2 * INSET) / nBins - 1 };
    shapes.push(svg("rect", { ...bar, y: y(good[i]), height: base - y(good[i]), class: "good" }));
    shapes.push(svg("rect", { ...bar, y: y(good[i] + bad[i]), height: y(good[i]) - y(good[i] + bad[i]), class: "bad" }));
  }
  const steps = leftOut.map((n, i) => `L${x(i / nBins)},${y(n)}L${x((i + 1) / nBins)},${y(n)}`);
  if (before.length) shapes.push(svg("path", { d: `M${x(0)},${base}${steps.join("")}L${x(1)},${base}`, class: "left-out" }));
  for (let i = 0; i <= 4; i++) {
    const anchor = i === 0 ? "start" : i === 4 ? "end" : "middle";
    shapes.push(svg("text", { x: x(i / 4), y: height - 5, "text-anchor": anchor }, short(Number(fromShare(i / 4).toPrecision(3)))));
  }
  shapes.push(svg("line", { id: "line", y1: 0, y2: base }));
  $("histogram").setAttribute("aria-label", `Histogram of ${count(rows.length, "score")}, with the threshold as a line`);
  $("histogram").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("histogram").replaceChildren(...shapes);
  placeLine();
}

function placeLine() {
  const place = INSET + toShare(threshold) * ($("histogram").clientWidth - 2 * INSET);
  for (const name of ["x1", "x2"]) $("line")?.setAttribute(name, place);
}

// ---- pictures: grey values of a map, 255 at the image's score, become colours above the threshold
const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const EDGE = data.colours[Math.floor(0.6 * data.colours.length)];
const TRUTH = [[255, 255, 255], [0, 120, 255]]; // dashes, seen on light and dark

async function greys(uri, width, height) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  Object.assign(pen.canvas, { width, height });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height).data;
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++) grey[i] = pixels[4 * i];
  return grey;
}

async function load(row, width, height) {
  const map = await greys(row.map, width, height);
  let peak = 0;
  for (let i = 0; i < map.length; i++) if (map[i] > map[peak]) peak = i;
  map[peak] = 255; // as the score says
  return { row, width, height, map, mask: row.mask && await greys(row.mask, width, height) };
}

const packed = ([red, green, blue], alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

function paint(canvas, { row, width, height, map, mask }, line) {
  Object.assign(canvas, { width, height });
  const level = row.score > threshold ? 255 * Math.sqrt(threshold / row.score) : 255;
  const last = data.colours.length - 1;
  const colours = Uint32Array.from({ length: 256 }, (_, grey) => {
    if (grey <= level) return 0; // transparent
    const above = (row.score * (grey / 255) ** 2) / threshold - 1; // 0 at the threshold, 1 at twice of it
    return packed(data.colours[Math.max(0, Math.min(last, Math.round(above * last)))], 255 * opacity);
  });
  const edge = packed(EDGE, 255), truth = TRUTH.map((colour) => packed(colour, 255));
  const onEdge = (grey, limit, i) => {
    const column = i % width;
    return column < line || column >= width - line || !(grey[i - line] > limit && grey[i + line] > limit
      && grey[i - line * width] > limit && grey[i + line * width] > limit);
  };
  const pixels = new Uint32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    if (map[i] > level) pixels[i] = onEdge(map, level, i) ? edge : colours[map[i]];
    if (mask && mask[i] > 127 && onEdge(mask, 127, i)) pixels[i] = truth[(((i % width) + i / width) / (4 * line)) & 1];
  }
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
}

// ---- gallery: decoded while near the screen, and let go again
const shown = rows.filter((row) => row.image);
const near = new Set();
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) (isIntersecting ? show : hide)(target.row);
}, { rootMargin: "300px" });

async function show(row) {
  near.add(row);
  await new Promise(requestAnimationFrame);
  if (!near.has(row)) return; // scrolled past
  row.layers = await load(row, row.width, row.height);
  near.has(row) ? paint(row.canvas, row.layers, 2) : hide(row);
}
function hide(row) {
  near.delete(row);
  row.layers = null;
  row.canvas.width = 0;
}

let asked = false;
function repaint() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const row of near) if (row.layers) paint(row.canvas, row.layers, 2);
    if ($("dialog").open && enlarged.layers) paint($("dialog").querySelector("canvas"), enlarged.layers, 3);
  });
}

function makeCard(row) {
  row.canvas = make("canvas");
  row.canvas.setAttribute("aria-hidden", "true");
  const image = make("img", { loading: "lazy", decoding: "async", src: row.image, width: row.width, height: row.height });
  image.alt = `${row.name}${row.kind ? `, ${row.kind}` : ""}, score ${short(row.score)}`;
  const button = make("button", { type: "button", className: "picture", title: "Enlarge", onclick: () => enlarge(row) }, image, row.canvas);
  row.badge = make("span", { className: "badge" });
  const facts = [row.kind, row.odds].filter(Boolean).join(" · ");
  row.card = make("li", { row }, button, cell("p", row.name, { className: "name", title: row.name }),
    make("p", {}, cell("b", short(row.score)), row.badge), cell("p", facts, { className: "facts" }));
  watch.observe(row.card);
}

function showVerdicts() {
  for (const row of shown) {
    if (row.badge.dataset.verdict === row.verdict) continue;
    row.badge.dataset.verdict = row.verdict;
    row.badge.textContent = LABELS[row.verdict];
  }
  filter();
  repaint();
}

const isFlagged = (row) => row.score > threshold;
const VERDICTS = { all: () => true, flagged: isFlagged, passed: (row) => !isFlagged(row) };
if (data.labelled) {
  for (const name of ["found", "missed", "false alarm"]) VERDICTS[name] = (row) => row.verdict === name;
  VERDICTS["missed or false alarm"] = (row) => row.good === isFlagged(row);
}

function filter() {
  const text = $("search").value.toLowerCase(), kind = $("kind").value;
  const matches = (row) => row.name.toLowerCase().includes(text) && (!kind || row.kind === kind) && VERDICTS[$("verdict").value](row);
  for (const row of shown) row.card.hidden = !matches(row);
  const n = shown.filter((row) => !row.card.hidden).length;
  const rest = rows.length - shown.length;
  $("shown").textContent = `${n} of ${count(rows.length, "image")} shown.`
    + (rest ? ` The ${shown.length} most anomalous are on this page; write_html writes all.` : "");
}

const ORDERS = {
  worst: (a, b) => b.score - a.score,
  best: (a, b) => a.score - b.score,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  kind: (a, b) => (a.kind ?? "").localeCompare(b.kind ?? "") || b.score - a.score,
};
function sort() {
  shown.sort(ORDERS[$("order").value]);
  $("gallery").append(...shown.map((row) => row.card));
}

// ---- one image, large
let enlarged = null;
async function enlarge(row) {
  const scale = 960 / Math.max(row.width, row.height);
  enlarged = { row, layers: null };
  $("dialog-name").textContent = row.name;
  $("dialog-text").textContent = [row.kind, `score ${short(row.score)}`, LABELS[row.verdict].slice(2), row.odds].filter(Boolean).join(" · ");
  Object.assign($("dialog-image"), { src: row.image, alt: row.name });
  $("dialog").querySelector("canvas").width = 0;
  $("dialog-picture").style.aspectRatio = `${row.width} / ${row.height}`;
  $("dialog-picture").style.maxWidth = `calc(70vh * ${row.width / row.height})`;
  if (!$("dialog").open) $("dialog").showModal();
  const layers = await load(row, Math.round(row.width * scale), Math.round(row.height * scale));
  if (enlarged.row === row) enlarged.layers = layers;
  repaint();
}
function step(by) {
  const visible = shown.filter((row) => !row.card.hidden || row === enlarged.row);
  enlarge(visible[(visible.indexOf(enlarged.row) + by + visible.length) % visible.length]);
}

// ---- the page
const slider = $("slider");
slider.oninput = () => setThreshold(Number(fromShare(slider.value / 1000).toPrecision(5)));
$("number").onchange = () => {
  const value = Number($("number").value);
  value > 0 ? setThreshold(value) : ($("number").value = short(threshold));
};
$("reset").onclick = () => setThreshold(data.start);
$("reset").textContent = data.threshold === null ? "Back to the start" : "Back to the model's own";
for (const button of document.querySelectorAll("[data-copy]")) {
  button.onclick = async () => {
    const code = $(button.dataset.copy);
    getSelection().selectAllChildren(code); // to be copied by hand where the page may not
    await navigator.clipboard?.writeText(code.textContent).catch(() => {});
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
}
$("opacity").oninput = () => { opacity = $("opacity").value / 100; repaint(); };
for (const id of ["search", "kind", "verdict"]) $(id).oninput = filter;
$("order").oninput = sort;
$("previous").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("close").onclick = () => $("dialog").close();
$("dialog").onkeydown = (event) => { if (event.key === "ArrowLeft") step(-1); if (event.key === "ArrowRight") step(1); };
$("dialog").onclick = (event) => { if (event.target === $("dialog")) $("dialog").close(); };

const option = (value, text = value) => make("option", { value, textContent: text });
const kinds = [...new Set(rows.map((row) => row.kind).filter(Boolean))].sort();
$("kind").append(option("", "all"), ...kinds.map((kind) => option(kind)));
$("kind-label").hidden = kinds.length < 2;
$("verdict").append(...Object.keys(VERDICTS).map((name) => option(name)));
$("tables").hidden = !data.labelled;
$("metrics-section").hidden = !data.metrics.length;
$("truth-legend").hidden = !rows.some((row) => row.mask);
$("edge").style.border = `2px solid rgb(${EDGE})`;
$("truth").style.border = `2px dashed rgb(${TRUTH[1]})`;
$("ramp").style.background = `linear-gradient(90deg, ${data.colours.map((c) => `rgb(${c})`).join(",")})`;
const legend = (name, text) => make("li", {}, make("i", { className: `swatch ${name}` }), text);
$("legend").append(legend("good", data.labelled ? `good (${nGood})` : `images (${rows.length})`));
if (data.labelled) $("legend").append(legend("bad", `defective (${rows.length - nGood})`));
if (data.calibration) $("legend").append(legend("left-out", `left out of training (${data.calibration.scores.length}), scaled`));
for (const [name, value, meaning] of data.metrics) {
  $("metrics").append(make("div", {}, cell("dt", name), cell("dd", value), cell("p", meaning)));
}

const list = (title, lines) => make("details", {}, cell("summary", title), make("ul", {}, ...lines.map((text) => cell("li", text))));
const note = (...content) => $("notes").append(make("li", {}, ...content));
for (const text of data.notes) note(text);
if (data.unreadable.length) {
  const names = data.unreadable.map(([name, problem]) => `${name} ${problem}`);
  note(list(`${count(names.length, "image")} could not be read, and ${names.length === 1 ? "has" : "have"} no score`, names));
}
if (data.unmasked.length) {
  const names = data.unmasked;
  note(list(`${count(names.length, "defective image")} without a mask: not in the metrics of pixels`, names));
}
$("drift").textContent = data.drift ?? "";
for (const [title, table] of data.about) {
  const lines = Object.entries(table).map(([name, value]) => make("tr", {}, cell("th", name, { scope: "row" }), cell("td", value)));
  $("about").append(make("details", { open: title === "Fit" }, cell("summary", title), make("table", {}, make("tbody", {}, ...lines))));
}

rows.forEach((row) => row.image && makeCard(row));
sort();
setThreshold(threshold);
new ResizeObserver(drawHistogram).observe($("histogram"));
