/** Photos come in: dropped, chosen from a folder, or pasted. */

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
  const take = (files) => {
    const photos = files.filter(mayBePhoto);
    const others = files.filter((file) => !mayBePhoto(file));
    if (photos.length > 0) onPhotos(photos);
    if (others.length > 0) onRefusal(`That is no photo: ${others.map((file) => file.name).join(", ")}`);
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
    if (!wantsPaste()) return;
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

/** Names of photos, each a different one, so that a report about them can be read. */
export function withOwnNames(photos) {
  const taken = new Set();
  return photos.map((photo) => {
    const dot = photo.name.lastIndexOf(".");
    const [stem, suffix] =
      dot > 0 ? [photo.name.slice(0, dot), photo.name.slice(dot)] : [photo.name, ""];
    let name = photo.name;
    for (let number = 2; taken.has(name); number += 1) name = `${stem} (${number})${suffix}`;
    taken.add(name);
    return name === photo.name ? photo : new File([photo], name, { type: photo.type });
  });
}

function mayBePhoto(file) {
  // A browser does not know every kind of photo that the service reads.
  return file.type === "" || file.type.startsWith("image/");
}
