// A map's picture: grey values of a map, 255 at the image's score, become colours above the threshold
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

async function load(row, longer) {
  const scale = longer / Math.max(row.width, row.height);
  const [width, height] = [Math.ceil(row.width * scale), Math.ceil(row.height * scale)];
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
