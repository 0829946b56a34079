// What is drawn on the photograph. Places come in its own pixels; the canvas has its own scale.

const SMALL = 64; // pixels of a side up to which pixels stay squares

/** The picture of a data URL, decoded. */
export async function loaded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Loads all pictures that the parts of an answer bring, as `image` beside their `url`. */
export async function withImages(answer) {
  const all = [answer.photograph];
  for (const part of answer.shown) all.push(...picturesOf(part));
  await Promise.all(all.filter(Boolean).map(async (one) => { one.image = await loaded(one.url); }));
  return answer;
}

export function picturesOf(part) {
  if (part.kind === "overlay") return [part.picture];
  if (part.kind === "words") return part.maps;
  if (part.kind === "objects") return part.items.map((item) => item.mask);
  return [];
}

/**
 * Draws a photograph and what is laid over it.
 *
 * view: { photograph, overlays, objects, threshold, opacity, highlight }; an overlay has `image` and
 * `grey`, `highlight` is an item of `objects` that stands out.
 */
export function draw(canvas, view) {
  const { width, height } = view.photograph;
  const wide = Math.max(200, canvas.parentElement.clientWidth - 2);
  const tall = Math.max(240, innerHeight * 0.75);
  const most = Math.max(width, height) <= SMALL ? 24 : 3;
  const scale = Math.min(wide / width, tall / height, most);
  const ratio = Math.min(2, devicePixelRatio || 1);
  canvas.style.width = `${Math.round(width * scale)}px`;
  canvas.width = Math.max(1, Math.round(width * scale * ratio));
  canvas.height = Math.max(1, Math.round(height * scale * ratio));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = Math.max(width, height) > SMALL;
  pen.imageSmoothingQuality = "high";
  const grey = view.overlays.some((one) => one.grey);
  pen.filter = grey ? "grayscale(1)" : "none";
  pen.drawImage(view.photograph.image, 0, 0, canvas.width, canvas.height);
  pen.filter = "none";
  pen.globalAlpha = view.opacity;
  for (const one of view.overlays) pen.drawImage(one.image, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 1;
  const unit = canvas.width / width;
  for (const part of view.objects) drawObjects(pen, part, view, unit, ratio);
}

/** Which items of a part are shown at a threshold; points have their own scores where items have none. */
export function above(part, threshold) {
  return part.items.filter((item) => item.score === null || item.score >= threshold);
}

function drawObjects(pen, part, view, unit, ratio) {
  const items = above(part, view.threshold).reverse(); // the surest on top
  const faint = (item) => view.highlight && view.highlight !== item;
  for (const item of items) {
    if (!item.mask || !item.mask.image) continue;
    pen.globalAlpha = view.opacity * (faint(item) ? 0.25 : 1);
    const { left, top, width, height, image } = item.mask;
    pen.drawImage(image, left * unit, top * unit, width * unit, height * unit);
  }
  for (const item of items) {
    pen.globalAlpha = faint(item) ? 0.25 : 1;
    if (item.box) drawBox(pen, item, unit, ratio, view.highlight === item);
  }
  for (const item of items) {
    pen.globalAlpha = faint(item) ? 0.25 : 1;
    if (item.points) drawPoints(pen, part, item, item.score === null ? view.threshold : -1, unit, ratio);
  }
  pen.globalAlpha = 1;
}

function drawBox(pen, item, unit, ratio, strong) {
  const [x0, y0, x1, y1] = item.box.map((side) => side * unit);
  pen.lineWidth = (strong ? 4 : 2) * ratio;
  pen.strokeStyle = item.colour;
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const text = item.score === null ? item.name : `${item.name} ${item.score.toFixed(2)}`;
  pen.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const wide = pen.measureText(text).width + 8 * ratio;
  const high = 18 * ratio;
  const x = Math.max(0, Math.min(x0, pen.canvas.width - wide));
  const y = y0 >= high ? y0 - high : Math.min(Math.max(0, y0), pen.canvas.height - high);
  pen.fillStyle = item.colour;
  pen.fillRect(x, y, wide, high);
  pen.fillStyle = bright(item.colour) ? "#000" : "#fff";
  pen.fillText(text, x + 4 * ratio, y + high / 2);
}

function bright(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

function drawPoints(pen, part, item, threshold, unit, ratio) {
  const there = item.points.map((point) => point[2] >= threshold);
  const place = (index) => [item.points[index][0] * unit, item.points[index][1] * unit];
  pen.lineCap = "round";
  for (const [width, edge] of [[5, "#18181c"], [3, null]]) {
    for (const [first, second, colour] of part.limbs) {
      if (!there[first] || !there[second]) continue;
      pen.lineWidth = width * ratio;
      pen.strokeStyle = edge || colour;
      pen.beginPath();
      pen.moveTo(...place(first));
      pen.lineTo(...place(second));
      pen.stroke();
    }
  }
  item.points.forEach((_, index) => {
    if (!there[index]) return;
    for (const [radius, colour] of [[5, "#18181c"], [4, "#fff"], [3, part.point_colours[index]]]) {
      pen.fillStyle = colour || item.colour;
      pen.beginPath();
      pen.arc(...place(index), radius * ratio, 0, 2 * Math.PI);
      pen.fill();
    }
  });
}
