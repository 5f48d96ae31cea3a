/** Photos come in: dropped, chosen from a folder, or pasted. */

// The service cuts names off after 100; a number may follow.
const MOST_SIGNS = 90;
// Photos that have a name of their own: with a further one they would be other files, and no longer
// those that are on their way.
const named = new WeakSet();

/**
 * Take photos in by every way there is.
 *
 * @param {object} ways
 * @param {Element} ways.zone Where they can be dropped.
 * @param {HTMLButtonElement} ways.button Opens the choice of files.
 * @param {HTMLInputElement} ways.input The choice of files itself.
 * @param {function(): boolean} ways.wantsPaste Whether a paste anywhere is meant for this place.
 * @param {function(File[])} ways.onPhotos Called with what came, at least one.
 * @param {function(string)} ways.onRefusal Called with the reason where something is no photo.
 */
export function acceptPhotos({ zone, button, input, wantsPaste, onPhotos, onRefusal }) {
  // One after the other: the last one chosen counts, however long one takes to be read.
  let takes = Promise.resolve();
  const take = (files) => {
    takes = takes.catch(() => {}).then(() => takeNext(files));
  };
  const takeNext = async (files) => {
    const others = files.filter((file) => !mayBePhoto(file));
    const lost = await unreadable(files.filter(mayBePhoto));
    const photos = files.filter((file) => !others.includes(file) && !lost.includes(file));
    if (photos.length > 0) onPhotos(photos);
    const refusals = [["That is no photo", others], ["That cannot be read: a folder, or moved", lost]]
      .filter(([, refused]) => refused.length > 0)
      .map(([reason, refused]) => `${reason}: ${namesOf(refused)}`);
    if (refusals.length > 0) onRefusal(refusals.join(". "));
  };

  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    // So that choosing the same photo again is a choice.
    input.value = "";
    if (files.length > 0) take(files);
  });

  // Entering a child leaves its parent: only the count tells when the pointer has really gone.
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("dragged-over", depth > 0);
  };
  zone.addEventListener("dragenter", () => mark(1));
  zone.addEventListener("dragleave", () => mark(-1));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    const files = [...event.dataTransfer.files];
    if (files.length > 0) take(files);
    else onRefusal("That was no file. Save the photo first, then drop it here.");
  });

  document.addEventListener("paste", (event) => {
    // Text goes where somebody writes: an office program copies it with a picture of it.
    const isText = event.target.closest?.("input, textarea") && event.clipboardData.types.includes("text/plain");
    if (isText || document.querySelector("dialog[open]") || !wantsPaste()) return;
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    take(files);
  });
}

/**
 * A photo that is no larger than it needs to be: what is sent takes less time and fits the limits.
 *
 * @returns {Promise<File>} The same one where it is small enough, or beyond this browser.
 */
export async function shrunk(photo, longestSidePixels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo);
  } catch {
    return photo;
  }
  const scale = longestSidePixels / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) {
    bitmap.close();
    return photo;
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.93); });
  return blob === null ? photo : new File([blob], photo.name, { type: blob.type });
}

/**
 * Names of photos, each a different one, so that a report about them can be read.
 *
 * They are such as reach the service and come back unchanged: it escapes signs that show nothing and
 * cuts off what is long, but leaves the joiners of Persian, Hindi and emoji; and a browser sends a
 * quotation mark as "%22".
 */
export function withOwnNames(photos) {
  const taken = new Set(photos.filter((photo) => named.has(photo)).map(({ name }) => name));
  return photos.map((photo) => {
    if (named.has(photo)) return photo;
    const plain = photo.name.replace(/(?![\u200c\u200d])["\\\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "_");
    const signs = [...plain];
    const given = signs.length > MOST_SIGNS ? [...signs.slice(0, 70), "…", ...signs.slice(-15)].join("") : plain;
    const dot = given.lastIndexOf(".");
    const [stem, suffix] = dot > 0 ? [given.slice(0, dot), given.slice(dot)] : [given, ""];
    let name = given;
    for (let number = 2; taken.has(name); number += 1) name = `${stem} (${number})${suffix}`;
    taken.add(name);
    const own = name === photo.name ? photo : new File([photo], name, { type: photo.type });
    named.add(own);
    return own;
  });
}

/** Those of some files that cannot be read: folders, and what was moved, changed or deleted. */
export async function unreadable(files) {
  const reads = await Promise.allSettled(files.map((file) => file.slice(0, 1).arrayBuffer()));
  return files.filter((_, index) => reads[index].status === "rejected");
}

/** "a.jpg, b.jpg". */
export function namesOf(files) {
  return files.map((file) => file.name).join(", ");
}

function mayBePhoto(file) {
  // A browser does not know every kind of photo that the service reads.
  return file.type === "" || file.type.startsWith("image/");
}
