// The images: decoded while near the screen, and let go again
const shown = rows.filter((row) => row.image);
const near = new Set();
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) (isIntersecting ? show : hide)(target.row);
}, { rootMargin: "300px" });

async function show(row) {
  near.add(row);
  await new Promise(requestAnimationFrame);
  if (!near.has(row)) return; // scrolled past
  row.layers = await load(row, 320);
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
    if ($("dialog").open && enlarged.layers) {
      const context = paint($("dialog").querySelector("canvas"), enlarged.layers, 3);
      if (threshold === data.threshold) paintBoxes(context, enlarged.layers);
    }
  });
}

function makeCard(row) {
  row.canvas = make("canvas");
  row.canvas.setAttribute("aria-hidden", "true");
  const alt = [row.name, row.kind, `score ${short(row.score)}`].filter(Boolean).join(", ");
  const image = make("img", { loading: "lazy", decoding: "async", src: row.image, alt });
  const button = make("button", { type: "button", className: "picture", title: "Enlarge" }, image, row.canvas);
  button.onclick = () => enlarge(row);
  row.badge = make("span", { className: "badge" });
  const facts = [row.kind, row.odds].filter(Boolean).join(" · ");
  const pieces = row.name.split(/(?<=[/_])/).flatMap((piece) => [piece, make("wbr")]);
  row.card = make("li", { row }, button, make("p", { className: "name", title: row.name }, ...pieces),
    make("p", {}, cell("b", short(row.score)), row.badge),
    ...(isUnaligned(row) ? [cell("p", "! not aligned", { className: "badge unaligned" })] : []), cell("p", facts, { className: "facts" }));
  watch.observe(row.card);
}

function showVerdicts() {
  for (const row of shown) {
    if (row.badge.dataset.verdict === row.verdict) continue;
    row.badge.dataset.verdict = row.verdict;
    row.badge.textContent = `${SIGNS[row.verdict]} ${row.verdict}`;
  }
  filter();
  repaint();
}

const isUnaligned = (row) => row.alignment?.aligned === 0;
const isFlagged = (row) => row.score > threshold;
const VERDICTS = { all: () => true, flagged: isFlagged, passed: (row) => !isFlagged(row) };
if (data.labelled) {
  for (const name of ["found", "missed", "false alarm"]) VERDICTS[name] = (row) => row.verdict === name;
  VERDICTS["missed or false alarm"] = (row) => row.good === isFlagged(row);
}

if (rows.some(isUnaligned)) VERDICTS["not aligned"] = isUnaligned;

function filter() {
  const text = $("search").value.toLowerCase(), kind = $("kind").value;
  const hasVerdict = VERDICTS[$("verdict").value];
  for (const row of shown) {
    row.card.hidden = !(row.name.toLowerCase().includes(text) && (!kind || row.kind === kind) && hasVerdict(row));
  }
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
  enlarged = { row, layers: null };
  $("dialog-name").textContent = row.name;
  const facts = [row.kind, `score ${short(row.score)}`, row.verdict, row.odds];
  $("dialog-text").textContent = facts.filter(Boolean).join(" · ");
  $("dialog-alignment").textContent = row.alignment ? alignment(row) : "";
  $("dialog-regions").hidden = threshold !== data.threshold; // those of the model's own
  $("dialog-regions").replaceChildren(...row.regions.map((region) => cell("li", [
    `${count(region.area, "pixel")}, ${region.right - region.left} wide and ${region.bottom - region.top} high`,
    region.p_value && `p = ${Number(region.p_value.toPrecision(2))}`,
  ].filter(Boolean).join(", "))));
  Object.assign($("dialog-image"), { src: row.image, alt: row.name });
  $("dialog").querySelector("canvas").width = 0;
  $("dialog-picture").style.aspectRatio = `${row.width} / ${row.height}`;
  $("dialog-picture").style.maxWidth = `calc(70vh * ${row.width / row.height})`;
  if (!$("dialog").open) $("dialog").showModal();
  const layers = await load(row, 960);
  if (enlarged.row === row) enlarged.layers = layers;
  repaint();
}
function alignment({ alignment: { dy, dx, angle, scale, peak, aligned } }) {
  const where = `dy ${dy.toFixed(1)}, dx ${dx.toFixed(1)} pixels of the input, angle ${angle.toFixed(1)}°, scale ${scale.toFixed(3)}, peak ${peak.toFixed(2)}`;
  return aligned ? `The part lies at ${where}.` : `Not aligned, and scored as it lies. The best that was found: ${where}.`;
}
function step(by) {
  if (!by) return;
  const visible = shown.filter((row) => !row.card.hidden || row === enlarged.row);
  enlarge(visible[(visible.indexOf(enlarged.row) + by + visible.length) % visible.length]);
}
