/** Verify: two photos, one person or two. */

import { verify } from "./api.js";
import {
  announce, byId, callOff, clearMessages, element, icon, iconButton, setLabel, showMessage, showPicture,
} from "./dom.js";
import { drawFaces } from "./drawing.js";
import { similarityBar } from "./faces.js";
import { showFailure } from "./failures.js";
import { acceptPhotos, shrunk } from "./photos.js";
import { takeShots } from "./shots.js";

const PHOTO_SIDE_PIXELS = 2000;

// `box` is the face that was compared, once the service has told; `wanted` is the photo that was
// asked for last.
const slots = ["a", "b"].map((letter) => ({ letter, wanted: null, photo: null, box: null }));
let isSame = false;
let request = null;

/** Prepare the view. */
export function start() {
  for (const slot of slots) build(slot);
  new ResizeObserver(drawBoxes).observe(byId("slot-a"));
}

/** The view is shown. */
export function enter() {}

/** The view is hidden: an answer that is on its way will stand there when it is shown again. */
export function leave() {
  callOff(byId("camera-dialog"));
}

function build(slot) {
  const place = byId(`slot-${slot.letter}`);
  const which = slot.letter === "a" ? "First photo" : "Second photo";
  slot.image = element("img", { className: "slot-photo", alt: "", hidden: true });
  slot.overlay = element("canvas", { className: "stage-overlay", "aria-hidden": "true" });
  slot.invitation = element("div", { className: "stage-invitation" },
    element("p", { className: "stage-lead", textContent: which }), element("p", { className: "hint", textContent: "drop it here, or choose" }));
  slot.choose = iconButton("photo", "Choose", () => {}, { "aria-label": `Choose the ${which.toLowerCase()}` });
  const input = element("input", { className: "file-input", type: "file", accept: "image/*",
    id: `verify-file-${slot.letter}`, tabIndex: -1, "aria-hidden": "true" });
  const camera = iconButton("camera", "Camera", async () => {
    const [photo] = await takeShots({ title: which, hint: "Look into the camera.", several: false });
    if (photo !== undefined) setPhoto(slot, photo);
  }, { "aria-label": `Take the ${which.toLowerCase()} with the camera` });
  place.append(
    element("div", { className: "stage slot-stage" }, slot.image, slot.overlay, slot.invitation),
    element("div", { className: "toolbar" }, slot.choose, input, camera),
  );
  acceptPhotos({
    zone: place,
    button: slot.choose,
    input,
    // Pasted photos go to the first empty place, and then to the second.
    wantsPaste: () => !byId("verify-view").hidden
      && slot === (slots.find((each) => each.photo === null) ?? slots[1]),
    onPhotos: ([photo, second]) => {
      setPhoto(slot, photo);
      // Both at once, as somebody who selects two photos means it.
      if (second !== undefined) setPhoto(slots.find((each) => each !== slot), second);
    },
    onRefusal: (reason) => showMessage(byId("verify-messages"), "error", reason),
  });
}

async function setPhoto(slot, original) {
  slot.wanted = original;
  const photo = await shrunk(original, PHOTO_SIDE_PIXELS);
  // A large photo takes longer than one that was chosen after it.
  if (slot.wanted !== original) return;
  slot.photo = photo;
  showPicture(slot.image, photo);
  slot.image.hidden = false;
  slot.image.alt = photo.name;
  slot.invitation.hidden = true;
  setLabel(slot.choose, "Another");
  clearMessages(byId("verify-messages"));
  byId("verdict").hidden = true;
  forgetBoxes();
  if (slots.every((each) => each.photo !== null)) compare();
}

async function compare() {
  request?.abort();
  const own = new AbortController();
  request = own;
  const place = byId("verdict");
  place.hidden = false;
  place.dataset.verdict = "busy";
  place.replaceChildren(element("p", { className: "verdict-word", textContent: "Comparing…" }));
  try {
    const answer = await verify(slots[0].photo, slots[1].photo, own.signal);
    isSame = answer.is_match;
    [slots[0].box, slots[1].box] = [answer.bounding_box_a, answer.bounding_box_b];
    showVerdict(place, answer);
    const remarks = answer.notes.map((note) => `${note}.`).join(" ");
    if (remarks !== "") showMessage(byId("verify-messages"), "info", remarks);
    drawBoxes();
  } catch (error) {
    if (error.name === "AbortError") return;
    place.hidden = true;
    showFailure(byId("verify-messages"), error, compare);
  }
}

function forgetBoxes() {
  for (const slot of slots) slot.box = null;
  drawBoxes();
}

function drawBoxes() {
  for (const { image, overlay, box } of slots) {
    const picture = { width: image.naturalWidth, height: image.naturalHeight };
    drawFaces(overlay, picture, box === null ? [] : [{ is_match: isSame, bounding_box: box }], false);
  }
}

function showVerdict(place, { similarity, threshold, is_match: isMatch, quality_reasons: reasons, is_live: live = [] }) {
  const doubts = [...reasons, ...live.map((isLive) => isLive ? null : "not live")];
  const why = doubts.filter((reason) => reason !== null).join(", ");
  const word = isMatch ? "The same person" : why ? `Cannot be told: ${why}` : "Not the same person";
  const relation = similarity >= threshold ? "at or above" : "below";
  const detail = `Similarity ${similarity.toFixed(3)}, ${relation} the threshold of ${threshold.toFixed(3)}, which the mark shows.`;
  place.dataset.verdict = isMatch ? "same" : "different";
  place.replaceChildren(
    element("p", { className: "verdict-word" }, icon(isMatch ? "known" : "close"), element("span", { textContent: word })),
    similarityBar(similarity, threshold),
    element("p", { className: "hint", textContent: detail }),
  );
  announce(`${word}. ${detail}`);
}
