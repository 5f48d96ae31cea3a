/** Photos taken by the camera, in a dialog; and photos in a row, each with a way to leave it out. */

import { Camera, CameraError } from "./camera.js";
import { ask, byId, clearMessages, counted, element, icon, showMessage, showPicture } from "./dom.js";

// What an enrolment gains from more pixels than these is less than what sending them costs.
const SHOT_SIDE_PIXELS = 1280;

/**
 * Take photos in a dialog.
 *
 * @param {object} wish
 * @param {string} wish.title
 * @param {string} wish.hint
 * @param {boolean} wish.several Whether more than one is wanted; one closes the dialog.
 * @returns {Promise<File[]>} Empty where it was called off.
 */
export async function takeShots({ title, hint, several }) {
  const dialog = byId("camera-dialog");
  const [shoot, done] = [byId("camera-shoot"), byId("camera-done")];
  const list = byId("camera-shots");
  const messages = byId("camera-messages");
  byId("camera-heading").textContent = title;
  byId("camera-hint").textContent = hint;
  let [shots, camera, open] = [[], null, true];
  let taking = Promise.resolve();

  const refresh = () => {
    showShots(list, shots, (photo) => {
      shots = shots.filter((each) => each !== photo);
      refresh();
      shoot.focus();
    });
    done.hidden = !several;
    done.disabled = shots.length === 0;
    done.textContent = shots.length > 0 ? `Use ${counted(shots.length, "photo")}` : "Use these";
  };
  const begin = async () => {
    shoot.disabled = true;
    try {
      const opened = await Camera.open(byId("camera-video"), null, () => {
        if (!open) return;
        shoot.disabled = true;
        showMessage(messages, "error", "The camera went away.", { label: "Try again", act: begin });
      }, () => open);
      if (!open) {
        opened.close();
        return;
      }
      camera = opened;
      const video = byId("camera-video");
      byId("camera-stage").style.setProperty("--shape", String(video.videoWidth / video.videoHeight));
      shoot.disabled = false;
      shoot.focus();
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      if (open) showMessage(messages, "error", error.message, { label: "Try again", act: begin });
    }
  };
  const shot = async () => {
    let blob;
    try {
      ({ blob } = await camera.takeFrame(SHOT_SIDE_PIXELS));
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      showMessage(messages, "error", error.message);
      return;
    }
    if (!open) return;
    shots = [...shots, new File([blob], `camera ${shots.length + 1}.jpg`, { type: blob.type })];
    if (!several) {
      dialog.close("confirm");
      return;
    }
    refresh();
    // Inside the dialog: what lies behind an open one is silent.
    byId("camera-status").textContent = `${counted(shots.length, "photo")} taken.`;
  };
  shoot.onclick = () => { taking = Promise.all([taking, shot()]); };
  done.onclick = () => dialog.close("confirm");

  clearMessages(messages);
  byId("camera-status").textContent = "";
  refresh();
  const answer = ask(dialog);
  begin();
  const confirmed = await answer;
  // A photo takes a moment, and the last one may have been taken just before the end.
  if (confirmed) await taking;
  open = false;
  const taken = confirmed ? shots : [];
  camera?.close();
  shots = [];
  refresh();
  return taken;
}

/**
 * Show photos in a row.
 *
 * @param {Element} list
 * @param {File[]} photos
 * @param {function(File)} onRemove Called with the one to leave out.
 * @param {File[]} staying Those that cannot be left out any more.
 */
export function showShots(list, photos, onRemove, staying = []) {
  for (const image of list.querySelectorAll("img")) showPicture(image, null);
  list.replaceChildren(...photos.map((photo) => {
    const image = element("img", { alt: photo.name });
    showPicture(image, photo);
    const remove = staying.includes(photo) ? null : element("button", {
      type: "button", className: "shot-remove", title: `Leave out ${photo.name}`,
      "aria-label": `Leave out ${photo.name}`, onclick: () => onRemove(photo),
    }, icon("close"));
    return element("li", { className: "shot" }, image, remove);
  }));
  list.hidden = photos.length === 0;
}
