/** The faces of a picture as a list, beside it. */

import { labelOf } from "./drawing.js";
import { element, icon, iconButton, nameOf, percent } from "./dom.js";
import { attributesInWords } from "./looks.js";

const CROP_PIXELS = 112;
// How much of a face's size is shown around it.
const SURROUNDINGS = 0.25;

/**
 * Fill the list.
 *
 * @param {Element} list
 * @param {Array<object>} faces As the service names them.
 * @param {?CanvasImageSource} picture What they are cut out of; null where it cannot be shown.
 * @param {?number} threshold From which similarity on somebody is named; null where unknown.
 * @param {?function(object)} onEnrol Called with an unknown face that is to be enrolled; null where
 *   none can be.
 */
export function showFaces(list, faces, picture, threshold, onEnrol = null) {
  const rows = [...list.children];
  // Rows stay where they are while the camera looks, so that they can be read and do not flicker.
  for (const row of rows.slice(faces.length)) row.remove();
  faces.forEach((face, index) => {
    const row = rows[index] ?? list.appendChild(emptyRow());
    fillRow(row, face, picture, threshold);
    if (onEnrol !== null && !face.is_match && !face.quality_reason) {
      row.lastElementChild.append(iconButton("add", "Enrol this face", () => onEnrol(face), { className: "button small" }));
    }
  });
}

/** Add to the rows that stand how the faces look; the focus may be in one. */
export function addLooks(list, faces) {
  faces.forEach((face, index) => fillLooks(list.children[index], face));
}

/** The faces in a sentence: "Ada Lovelace, and 2 unknown people." */
export function inWords(faces) {
  if (faces.length === 0) return "No face in sight.";
  const asked = faces.find((face) => face.challenge)?.challenge;
  if (asked !== undefined) return `${asked[0].toUpperCase()}${asked.slice(1)}.`;
  const named = faces.filter((face) => face.is_match).map((face) => face.name);
  const strangers = faces.length - named.length;
  const parts = [...named];
  if (strangers > 0) parts.push(strangers === 1 ? "one unknown person" : `${strangers} unknown people`);
  const text = new Intl.ListFormat("en", { type: "conjunction" }).format(parts);
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/**
 * A bar that shows where a similarity lies, and where the threshold.
 *
 * Similarities of strangers differ from network to network; the threshold always stands at two
 * thirds, and full agreement, 1, at the end.
 */
export function similarityBar(similarity, threshold) {
  const bar = element("div", { className: "bar", "aria-hidden": "true" });
  const fill = element("div", { className: "bar-fill" });
  const least = threshold - 2 * (1 - threshold);
  const share = Math.max(0.02, Math.min(1, (similarity - least) / (1 - least)));
  fill.style.inlineSize = `${(share * 100).toFixed(1)}%`;
  bar.append(fill, element("div", { className: "bar-threshold" }));
  return bar;
}

/** What a face is drawn on. */
export function emptyCrop() {
  return element("canvas", { className: "face-crop", width: CROP_PIXELS, height: CROP_PIXELS, "aria-hidden": "true" });
}

function emptyRow() {
  return element("li", { className: "face" }, emptyCrop(), element("div", { className: "face-text" }));
}

function fillRow(row, face, picture, threshold) {
  const [crop, text] = row.children;
  row.dataset.known = String(face.is_match);
  drawCrop(crop, face.bounding_box, picture);
  const who = element("p", { className: "face-name" }, icon(face.is_match ? "known" : "unknown"),
    face.is_match ? nameOf(face.name) : element("span", { textContent: labelOf(face) }));
  const detail = element("p", { className: "face-detail" });
  text.replaceChildren(who, detail);
  detailOf(face, detail);
  if (face.is_live === true) detail.append(` · looks live (liveness ${face.liveness.toFixed(2)})`);
  if (face.name !== null && threshold !== null && !face.challenge) text.append(similarityBar(face.similarity, face.threshold ?? threshold));
  text.append(element("p", { className: "face-detail looks" }));
  fillLooks(row, face);
}

function fillLooks(row, { attributes }) {
  const looks = row.querySelector(".looks");
  looks.hidden = attributes === undefined;
  looks.textContent = attributes === undefined ? "" : attributesInWords(attributes);
}

/** Why a face has its name, or none. */
function detailOf(face, detail) {
  const similarity = `similarity ${face.similarity?.toFixed(3)}`;
  if (face.challenge) {
    detail.append("then the name is told: no photo can do that");
  } else if (face.quality_reason) {
    detail.append(`cannot be trusted: ${face.quality_reason} (quality ${face.quality.toFixed(2)})`);
  } else if (face.is_live === false) {
    detail.append(`not live: a photo or a screen held up? (liveness ${face.liveness.toFixed(2)})`);
  } else if (face.name === null) {
    detail.append("nobody is enrolled yet");
  } else if (face.is_match) {
    detail.append("probability" in face
      ? `${percent(face.probability)} likely · ${similarity}` : similarity);
  } else {
    detail.append("nearest is ", nameOf(face.name), `, ${similarity}`);
    if ("probability" in face) detail.append(`, ${percent(face.probability)} likely`);
    if ("threshold" in face) detail.append(`, of whom ${face.threshold} is asked`);
  }
}

/** Draw a face, cut out of a picture with a little around it; hide the place where there is no picture. */
export function drawCrop(canvas, box, picture) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  canvas.hidden = picture === null;
  if (picture === null) return;
  const side = Math.max(box.width, box.height) * (1 + 2 * SURROUNDINGS);
  const left = box.x + box.width / 2 - side / 2;
  const top = box.y + box.height / 2 - side / 2;
  context.drawImage(picture, left, top, side, side, 0, 0, canvas.width, canvas.height);
}
