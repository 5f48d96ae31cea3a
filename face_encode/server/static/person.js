/** The photos of a person: what each shows, and how one in the wrong place is put right. */

import { crop, movePhoto, photosOf, removePhoto, setPicture, thumbnail } from "./api.js";
import { byId, element, icon, iconButton, showWhenSeen } from "./dom.js";
import { showFailure } from "./failures.js";
import { askName } from "./naming.js";

/** A person's thumbnail where one is kept, and the first letter until then. */
export function portrait({ name, thumbnail: hasThumbnail }) {
  const letter = new Intl.Segmenter().segment(name).containing(0)?.segment ?? "";
  const frame = element("span", { className: "portrait", "aria-hidden": "true", textContent: letter });
  if (hasThumbnail) showWhenSeen(frame, "", () => thumbnail(name));
  return frame;
}

/**
 * Show the photos of a person in a place kept for them.
 *
 * @param {Element} place
 * @param {string} name
 * @param {object} wish
 * @param {boolean} wish.mayWrite Whether photos may be removed, moved and shown as the picture.
 * @param {string[]} wish.names People that a photo can be moved to.
 * @param {function(string, ?number): Promise} wish.onChange Called with what was done, and the
 *   number of the change.
 * @param {function(): Promise} wish.onGone Called where the person, or a photo, is no longer there.
 */
export async function showPhotos(place, name, { mayWrite, names, onChange, onGone }) {
  let photos;
  try {
    photos = await photosOf(name);
  } catch (error) {
    if (error.status === 404) await onGone();
    showFailure(byId("people-messages"), error);
    return;
  }
  const attempt = async (act) => {
    try {
      await act();
    } catch (error) {
      if (error.status === 404) await onGone();
      showFailure(byId("people-messages"), error);
    }
  };
  const remove = (photo) => attempt(async () => {
    const { change } = await removePhoto(photo.id);
    await onChange(`${shownName(photo)} is no longer a photo of ${name}.`, change);
  });
  const choose = (photo) => attempt(async () => {
    await setPicture(photo.id);
    await onChange(`${shownName(photo)} is the picture of ${name} now.`, null);
  });
  const move = (photo) => askName({
    title: [`Move ${shownName(photo)}`],
    label: "Person",
    verb: "Move",
    names,
    send: (wanted) => movePhoto(photo.id, wanted),
    onDone: (answer) => onChange(`${shownName(photo)} is a photo of ${answer.name} now.`, answer.change),
  });
  place.replaceChildren(...photos.map((photo) => photoCard(photo, name, mayWrite, { choose, move, remove })));
}

function photoCard(photo, name, mayWrite, { choose, move, remove }) {
  const shown = shownName(photo);
  const face = element("div", { className: "photo-face" }, icon("photo"));
  if (photo.has_crop) showWhenSeen(face, `The face in ${shown}`, () => crop(photo.id));
  const quality = photo.quality === null ? "" : ` · quality ${photo.quality.toFixed(2)}`;
  const day = new Date(photo.enrolled_at).toLocaleDateString(undefined, { dateStyle: "medium" });
  const named = (verb) => ({ className: "button small quiet", "aria-label": `${verb} ${shown} of ${name}`, title: verb });
  const buttons = !mayWrite ? null : element("div", { className: "photo-buttons" },
    photo.has_crop ? iconButton("photo", "Picture", () => choose(photo), named("Show as the picture:")) : null,
    iconButton("people", "Move", () => move(photo), named("Move")),
    iconButton("delete", "Remove", () => remove(photo), named("Remove")));
  return element("li", { className: "photo" }, face,
    element("span", { className: "photo-source", textContent: shown, title: photo.source }),
    element("span", { className: "person-detail", textContent: `${day}${quality}` }), buttons);
}

/** A photo's file without its folders; its number where that is unknown. */
function shownName(photo) {
  return photo.source.split(/[\\/]/u).pop() || `photo ${photo.id}`;
}
