/** Before photos are enrolled: likely mistakes are asked about, and which face of several is meant. */

import { ServiceError, check, enrol } from "./api.js";
import { ask, byId, element, icon, nameOf } from "./dom.js";
import { drawCrop, emptyCrop } from "./faces.js";
import { intersectionOverUnion } from "./gliding.js";
import { portrait } from "./person.js";

// From this share on, two boxes are of one face.
const LEAST_OVERLAP = 0.5;

/**
 * Enrol photos, after a question where an answer is needed.
 *
 * @param {string} name
 * @param {File[]} photos
 * @param {?object} box The face that is meant, in pixels of the one photo; null asks where there are
 *   several.
 * @returns {Promise<?object>} The service's report, which tells of the photos that were left out by
 *   choice, too; null where all of them were, or it was called off.
 */
export async function enrolAsking(name, photos, box = null) {
  const checked = await check(name, photos);
  const answers = checked.photos.map((photo, index) => answerOn(photo, photos[index], box));
  const asked = answers.filter(({ choices, isWanted }) => choices.length > 1 || !isWanted);
  if (asked.length > 0 && !(await askAbout(checked.name, asked))) return null;
  const [wanted, others] = [true, false].map((isWanted) => answers.filter((each) => each.isWanted === isWanted));
  if (wanted.length === 0) return null;
  const report = await enrol(name, wanted.map(({ file }) => file), wanted.map(({ face }) => face));
  const leftOut = others.map(({ file }) => ({ photo: file.name, reason: "left out, as you chose" }));
  return { ...report, left_out: [...report.left_out, ...leftOut] };
}

/** What is done with a photo unless somebody decides otherwise, and the faces to choose among. */
function answerOn(photo, file, box) {
  let choices = [...photo.faces.keys()];
  let face = photo.face ?? 0;
  if (box !== null && choices.length > 0) {
    const overlaps = photo.faces.map((each) => intersectionOverUnion(each.bounding_box, box));
    face = overlaps.indexOf(Math.max(...overlaps));
    if (overlaps[face] < LEAST_OVERLAP) {
      throw new ServiceError("This face is too small or too unclear to be enrolled.", 0);
    }
    choices = [face];
  }
  return { photo, file, face, choices, isWanted: isSure(photo, face) };
}

function isSure(photo, face) {
  return !photo.faces[face]?.doubts.length;
}

/** Ask about some photos; whether to go on, with what was chosen in the answers. */
async function askAbout(name, answers) {
  const rows = answers.map((answer, index) => questionOn(name, answer, index));
  byId("doubts").replaceChildren(...rows);
  const isConfirmed = await ask(byId("doubt-dialog"));
  // Another question may have taken the place of this one.
  if (rows[0].isConnected) byId("doubts").replaceChildren();
  return isConfirmed;
}

function questionOn(name, answer, index) {
  const { photo } = answer;
  const wish = element("input", { type: "checkbox", onchange: () => { answer.isWanted = wish.checked; } });
  const doubts = element("ul", { className: "rows", "aria-live": "polite" });
  const choose = (face) => {
    Object.assign(answer, { face, isWanted: isSure(photo, face) });
    wish.checked = answer.isWanted;
    const { refusal, doubts: found } = photo.faces[face];
    const rows = refusal === null ? found : [{ text: refusal, person: null }, ...found];
    doubts.replaceChildren(...rows.map(({ text, person }) => element("li", { className: "row note" },
      person === null ? icon("warning") : portrait({ name: person, thumbnail: true }),
      element("span", { className: "row-text", textContent: text }))));
  };
  choose(answer.face);
  return element("li", { className: "doubt" }, element("h3", { textContent: photo.photo }),
    facesOf(name, answer, index, choose), doubts,
    element("label", { className: "choice" }, wish, "Enrol this photo"));
}

/** The face of a photo, or a choice among several, numbered as they stand in it. */
function facesOf(name, { photo, file, face: meant, choices }, index, choose) {
  const centre = (face) => photo.faces[face].bounding_box.x + photo.faces[face].bounding_box.width / 2;
  const shown = [...choices].sort((one, other) => centre(one) - centre(other))
    .map((face) => ({ face, crop: emptyCrop() }));
  createImageBitmap(file).catch(() => null).then((picture) => {
    for (const { face, crop } of shown) drawCrop(crop, photo.faces[face].bounding_box, picture);
    picture?.close();
  });
  if (shown.length === 1) return shown[0].crop;
  return element("fieldset", { className: "doubt-faces" },
    element("legend", {}, "Which face is ", nameOf(name), "?"),
    ...shown.map(({ face, crop }, place) => element("label", { className: "doubt-face" },
      element("input", {
        type: "radio", name: `doubt-${index}`, checked: face === meant, onchange: () => choose(face),
        "aria-label": `Face ${place + 1} of ${shown.length}, from the left`,
      }),
      crop, element("span", { textContent: place + 1, "aria-hidden": "true" }))));
}
