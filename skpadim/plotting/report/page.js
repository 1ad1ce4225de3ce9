// What the page begins with, and what its controls do. The last of the scripts.
slider.oninput = () => setThreshold(Number(short(fromShare(slider.value / 1000))));
$("number").onchange = () => {
  const value = Number($("number").value);
  $("number").setCustomValidity(value > 0 ? "" : "Thresholds are numbers above 0.");
  value > 0 ? setThreshold(value) : $("number").reportValidity();
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
$("dialog").onkeydown = (event) => step({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0);
$("dialog").onclick = (event) => { if (event.target === $("dialog")) $("dialog").close(); };

const option = (value, text = value) => make("option", { value, textContent: text });
const kinds = [...new Set(rows.map((row) => row.kind).filter(Boolean))].sort();
$("kind").append(option("", "all"), ...kinds.map((kind) => option(kind)));
$("kind-label").hidden = kinds.length < 2;
if (kinds.length < 2) $("by-kind").remove();
$("shell-line").hidden = !data.command;
$("verdict").append(...Object.keys(VERDICTS).map((name) => option(name)));
$("tables").hidden = !data.labelled;
$("metrics-section").hidden = !data.metrics.length;
$("truth-legend").hidden = !rows.some((row) => row.mask);
$("unseen-legend").hidden = !rows.some((row) => row.unseen);
$("edge").style.border = `2px solid rgb(${EDGE})`;
$("truth").style.border = `2px dashed rgb(${TRUTH[1]})`;
$("ramp").style.background = `linear-gradient(90deg, ${data.colours.map((c) => `rgb(${c})`).join(",")})`;
const legend = (name, text) => make("li", {}, make("i", { className: `swatch ${name}` }), text);
$("legend").append(legend("good", data.labelled ? `good (${nGood})` : `images (${rows.length})`));
if (data.labelled) $("legend").append(legend("bad", `defective (${rows.length - nGood})`));
if (data.calibration) {
  $("legend").append(legend("left-out", `${data.calibration.who} (scaled)`));
}
for (const [name, value, meaning] of data.metrics) {
  $("metrics").append(make("div", {}, cell("dt", name), cell("dd", value), cell("p", meaning)));
}

const note = (...content) => $("notes").append(make("li", {}, ...content));
const fold = (title, ...content) => make("details", {}, cell("summary", title), ...content);
const list = (title, lines) => fold(title, make("ul", {}, ...lines.map((text) => cell("li", text))));
for (const text of data.notes) note(text);
if (data.unreadable.length) {
  const names = data.unreadable.map(([name, problem]) => `${name} ${problem}`);
  note(list(`${count(names.length, "image")} without a score`, names));
}
if (data.unmasked.length) {
  const names = data.unmasked;
  note(list(`${count(names.length, "defective image")} without a mask: not in the metrics of pixels`, names));
}
const unaligned = rows.filter(isUnaligned).map((row) => row.name);
if (unaligned.length) {
  note(list(`${count(unaligned.length, "image")} could not be aligned: scored unaligned`, unaligned));
}
$("drift").textContent = data.drift ?? "";
for (const [title, table] of data.about) {
  const lines = Object.entries(table).map(([name, value]) =>
    make("tr", {}, cell("th", name, { scope: "row" }), cell("td", value)));
  $("about").append(fold(title, make("table", {}, make("tbody", {}, ...lines))));
}
$("about").firstChild.open = true;

rows.forEach((row) => row.image && makeCard(row));
sort();
setThreshold(threshold);
new ResizeObserver(drawHistogram).observe($("histogram"));
