"use strict";
// The threshold, and what follows from it in words and tables. The first of the scripts.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const $ = (id) => document.getElementById(id);
const slider = $("slider");

// ---- words and elements: what comes from the data is only ever text
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const short = (value) => String(Number(value.toPrecision(4)));
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
const are = (n) => `${n} ${n === 1 ? "is" : "are"}`;
const SIGNS = { flagged: "▲", found: "▲", missed: "✕", "false alarm": "!", passed: "✓" };

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
  const verb = flagged === 1 ? "is" : "are";
  $("headline").textContent = `${flagged} of ${count(rows.length, "image")} ${verb} flagged`;
  let text = `At the threshold ${short(threshold)}${own ? ", the model's own" : ""}. `;
  if (data.labelled) {
    text += `Of ${count(rows.length - nGood, "defective image")}, ${are(found)} found and ${missed} missed; `;
    text += `of ${count(nGood, "good image")}, ${are(alarms)} falsely flagged.`;
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
  $("number").value = own ? short(threshold) : threshold; // else as the command has it
  $("number").setCustomValidity("");
  slider.setAttribute("aria-valuetext", `${short(threshold)}, ${flagged} flagged`);
  $("expected").textContent = expected();
  $("shell").textContent = data.command + threshold;
  $("python").textContent = `detector.offset_ = -${threshold}`;
  $("commands").hidden = own;
  $("reset").disabled = threshold === data.start;
  tellKinds();
}

function expected() {
  if (!data.calibration) return "This model has no left-out scores that told how many new good parts are flagged.";
  const { scores, shares, n_groups: nGroups } = data.calibration;
  const above = scores.filter((score) => score > threshold).length;
  const parts = nGroups ? ` (${count(nGroups, "part")}, each counted once)` : "";
  const share = `${above ? "about" : "at most"} ${percent(shares[above], 1)}`;
  return `Of new good parts ${share} would be flagged, 1 in ${Math.round(1 / shares[above])}: `
    + `above it are ${above} of ${data.calibration.who}${parts}, counting one more, to be safe.`;
}

function tellKinds() {
  const titles = ["Kind", "Images", "Flagged", "Share"];
  const head = make("tr", {}, ...titles.map((text) => cell("th", text, { scope: "col" })));
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
