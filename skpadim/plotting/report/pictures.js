// A map's picture: grey values of a map, 255 at the image's score, become colours above the threshold
const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const EDGE = data.colours[Math.floor(0.6 * data.colours.length)];
const TRUTH = [[255, 255, 255], [0, 120, 255]]; // dashes, seen on light and dark

// Grey and opacity of each pixel
async function greys(uri, width, height) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  Object.assign(pen.canvas, { width, height });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height).data;
  const every = (first) => Uint8Array.from({ length: width * height }, (_, i) => pixels[4 * i + first]);
  return [every(0), every(3)];
}

async function load(row, longer) {
  const scale = longer / Math.max(row.width, row.height);
  const [width, height] = [Math.ceil(row.width * scale), Math.ceil(row.height * scale)];
  const [map, seen] = await greys(row.map, width, height);
  let peak = 0;
  for (let i = 0; i < map.length; i++) if (map[i] > map[peak]) peak = i;
  const spot = Math.round(longer / 100); // as the score says, and large enough to be seen
  for (let y = -spot; y <= spot; y++) {
    const column = peak % width, start = peak + y * width;
    if (start >= 0 && start < map.length) map.fill(255, start - Math.min(spot, column), start + Math.min(spot, width - 1 - column) + 1);
  }
  return { row, width, height, map, seen, mask: row.mask && (await greys(row.mask, width, height))[0] };
}

const packed = ([red, green, blue], alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
const UNSEEN = [packed([128, 128, 128], 128), packed([230, 230, 230], 128)]; // stripes

function paint(canvas, { row, width, height, map, seen, mask }, line) {
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
    if (seen[i] < 128) pixels[i] = UNSEEN[((i % width) + Math.floor(i / width)) % (6 * line) < 2 * line ? 1 : 0];
    else if (map[i] > level) pixels[i] = onEdge(map, level, i) ? edge : colours[map[i]];
    if (mask && mask[i] > 127 && onEdge(mask, 127, i)) pixels[i] = truth[(((i % width) + i / width) / (4 * line)) & 1];
  }
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return context;
}

// Boxes of the regions, with the numbers that the list has
function paintBoxes(context, { row, width, height }) {
  const [across, down] = [width / row.size[1], height / row.size[0]];
  const strokes = [["#000", 4], ["#fff", 2]];
  const unit = width / context.canvas.clientWidth; // of the screen, in pixels of the canvas
  context.font = `bold ${14 * unit}px system-ui, sans-serif`;
  row.regions.forEach(({ top, left, bottom, right }, index) => {
    const box = [left * across, top * down, (right - left) * across, (bottom - top) * down];
    for (const [strokeStyle, lineWidth] of strokes) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.strokeRect(...box);
    }
    const place = [index + 1, box[0] + 3 * unit, box[1] > 20 * unit ? box[1] - 5 * unit : box[1] + 16 * unit];
    Object.assign(context, { strokeStyle: "#000", lineWidth: 4, fillStyle: "#fff" });
    context.strokeText(...place);
    context.fillText(...place);
  });
}
