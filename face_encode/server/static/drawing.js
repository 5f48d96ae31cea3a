/** Boxes and names over a picture. Known and unknown differ in colour, in line and in sign. */

const KNOWN = { line: "#17a67c", plate: "#0d7457", ink: "#ffffff", dashes: [] };
const UNKNOWN = { line: "#f5a63d", plate: "#f5b04f", ink: "#2a1a02", dashes: [9, 6] };
const HALO = "rgba(0, 0, 0, 0.45)";
const FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', sans-serif";

/**
 * Draw the faces of a picture that is shown as large as fits, in the middle of the canvas.
 *
 * @param {HTMLCanvasElement} canvas Lies over the picture, transparent.
 * @param {{width: number, height: number}} picture The pixels that the boxes are given in.
 * @param {Array<object>} faces As the service names them.
 * @param {boolean} withNames
 */
export function drawFaces(canvas, picture, faces, withNames = true) {
  const { clientWidth, clientHeight } = canvas;
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(clientWidth * density);
  canvas.height = Math.round(clientHeight * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  if (!picture.width || !picture.height) return;
  const scale = Math.min(clientWidth / picture.width, clientHeight / picture.height);
  const left = (clientWidth - picture.width * scale) / 2;
  const top = (clientHeight - picture.height * scale) / 2;
  const shown = faces.map((face) => ({
    face,
    left: left + face.bounding_box.x * scale,
    top: top + face.bounding_box.y * scale,
    width: face.bounding_box.width * scale,
    height: face.bounding_box.height * scale,
  }));
  for (const box of shown) drawBox(context, box);
  if (!withNames) return;
  const plates = [];
  for (const box of shown) {
    const others = shown.filter((each) => each !== box);
    drawPlate(context, box, others, plates, clientWidth, clientHeight);
  }
}

/** What stands beside a face's box. */
export function labelOf(face) {
  return face.challenge ?? (face.is_match ? face.name : "unknown");
}

function drawBox(context, box) {
  const look = box.face.is_match ? KNOWN : UNKNOWN;
  const radius = Math.min(10, box.width / 6);
  for (const [style, width] of [[HALO, 5], [look.line, 3]]) {
    context.beginPath();
    context.roundRect(box.left, box.top, box.width, box.height, radius);
    context.strokeStyle = style;
    context.lineWidth = width;
    context.setLineDash(look.dashes);
    context.stroke();
  }
  context.setLineDash([]);
}

function drawPlate(context, box, others, plates, right, bottom) {
  const look = box.face.is_match ? KNOWN : UNKNOWN;
  const size = right < 480 ? 12 : 15;
  const [padding, sign, height] = [size * 0.5, size, Math.round(size * 1.7)];
  context.font = `600 ${size}px ${FONT_FAMILY}`;
  const choices = [];
  // The whole name where there is room, otherwise what fits over its face.
  for (const [room, cost] of [[right, 0], [Math.max(box.width + 12, 60), 0.4]]) {
    const text = shortened(context, labelOf(box.face), room - sign - 3 * padding);
    const width = Math.ceil(context.measureText(text).width + sign + 2.5 * padding);
    for (const left of [box.left - 1.5, box.left + (box.width - width) / 2]) {
      for (const [order, top] of [box.top - height - 4, box.top + box.height + 4, box.top + 4].entries()) {
        const place = { text, width, height, top: Math.max(0, Math.min(top, bottom - height)),
          left: Math.max(0, Math.min(left, right - width)) };
        const hidden = 12 * covered(place, plates) + covered(place, others)
          + (order < 2 ? covered(place, [box]) : 0);
        choices.push({ place, cost: cost + order * 0.2 + hidden / (width * height) });
      }
    }
  }
  const { place } = choices.reduce((best, each) => (each.cost < best.cost ? each : best));
  plates.push(place);

  context.fillStyle = look.plate;
  context.beginPath();
  context.roundRect(place.left, place.top, place.width, height, 5);
  context.fill();
  context.fillStyle = look.ink;
  context.strokeStyle = look.ink;
  const middle = place.top + height / 2;
  drawSign(context, box.face.is_match, place.left + padding, middle, sign);
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(place.text, place.left + sign + 1.5 * padding, middle + 0.5);
}

function drawSign(context, known, left, middle, size) {
  context.lineWidth = size / 7;
  context.lineCap = "round";
  context.lineJoin = "round";
  if (known) {
    context.beginPath();
    context.moveTo(left + size * 0.1, middle);
    context.lineTo(left + size * 0.4, middle + size * 0.28);
    context.lineTo(left + size * 0.92, middle - size * 0.28);
    context.stroke();
  } else {
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText("?", left + size / 2, middle + 0.5);
  }
}

function shortened(context, text, room) {
  // One line, whatever white space a name holds; cut between letters, not inside one.
  const letters = [...text.split(/\s+/u).join(" ")];
  if (context.measureText(letters.join("")).width <= room) return letters.join("");
  while (letters.length > 1 && context.measureText(`${letters.join("")}…`).width > room) letters.pop();
  return `${letters.join("")}…`;
}

/** How many square pixels of a place lie on these boxes. */
function covered(place, boxes) {
  let pixels = 0;
  for (const box of boxes) {
    const width = Math.min(place.left + place.width, box.left + box.width) - Math.max(place.left, box.left);
    const height = Math.min(place.top + place.height, box.top + box.height) - Math.max(place.top, box.top);
    pixels += Math.max(0, width) * Math.max(0, height);
  }
  return pixels;
}
