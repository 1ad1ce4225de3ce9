// The histogram of the scores, with the threshold as a line.
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
  const bins = (scores) => {
    const counts = Array(nBins).fill(0);
    for (const score of scores) counts[Math.min(nBins - 1, Math.floor(toShare(score) * nBins))]++;
    return counts;
  };
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
    const [middle, end] = [y(good[i]), y(good[i] + bad[i])];
    shapes.push(svg("rect", { ...bar, y: middle, height: base - middle, class: "good" }));
    shapes.push(svg("rect", { ...bar, y: end, height: middle - end, class: "bad" }));
  }
  const steps = leftOut.map((n, i) => `L${x(i / nBins)},${y(n)}L${x((i + 1) / nBins)},${y(n)}`);
  const outline = `M${x(0)},${base}${steps.join("")}L${x(1)},${base}`;
  if (before.length) shapes.push(svg("path", { d: outline, class: "left-out" }));
  for (let i = 0; i <= 4; i++) {
    const anchor = i === 0 ? "start" : i === 4 ? "end" : "middle";
    const label = String(Number(fromShare(i / 4).toPrecision(3)));
    shapes.push(svg("text", { x: x(i / 4), y: height - 5, "text-anchor": anchor }, label));
  }
  shapes.push(svg("text", { x: 0, y: 11 }, "score (log scale)"));
  shapes.push(svg("line", { id: "line", y1: 0, y2: base }));
  $("histogram").setAttribute("aria-label", `Histogram of ${count(rows.length, "score")} and the threshold`);
  $("histogram").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("histogram").replaceChildren(...shapes);
  placeLine();
}

function placeLine() {
  const place = INSET + toShare(threshold) * ($("histogram").clientWidth - 2 * INSET);
  for (const name of ["x1", "x2"]) $("line")?.setAttribute(name, place);
}
