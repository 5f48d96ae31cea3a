/** Identify: a photo, or what the camera sees. */

import { analyze, match, settings, undo } from "./api.js";
import { enrolAsking } from "./asking.js";
import { Camera, CameraError, listCameras } from "./camera.js";
import { announce, byId, callOff, clearMessages, element, setLabel, showMessage, showPicture } from "./dom.js";
import { drawFaces } from "./drawing.js";
import { addLooks, inWords, showFaces } from "./faces.js";
import { showFailure } from "./failures.js";
import { GlidingFaces } from "./gliding.js";
import { cautionOn, joinAttributes } from "./looks.js";
import { askName } from "./naming.js";
import { acceptPhotos, shrunk } from "./photos.js";

// Enough for the faces of a large group.
const PHOTO_SIDE_PIXELS = 4000;
const LIVE_FRAME_SIDE_PIXELS = 640;
// No more frames than this a second, however fast the service: others want answers too.
const LEAST_MILLISECONDS_BETWEEN_FRAMES = 100;
// So long has somebody to be in sight before it is said aloud.
const ANNOUNCE_AFTER_MILLISECONDS = 800;
const WAIT_WHEN_BUSY_SECONDS = 1;

let threshold = null;
let picture = { width: 0, height: 0 };
let faces = [];
// The last photo, as it was chosen and as it was sent, and its request; the camera's are its session's.
let chosen = null;
let sent = null;
let request = null;
let live = null;
let settingsFailure = null;
let mayWrite = true;

/** Prepare the view. */
export function start() {
  acceptPhotos({
    zone: byId("stage"),
    button: byId("choose-photo"),
    input: byId("identify-file"),
    wantsPaste: () => !byId("identify-view").hidden,
    onPhotos: ([photo, ...others]) => {
      identifyPhoto(photo);
      if (others.length > 0) {
        showMessage(byId("identify-messages"), "info", "One photo at a time: this is the first of them.");
      }
    },
    onRefusal: (reason) => showMessage(byId("identify-messages"), "error", reason),
  });
  byId("toggle-camera").addEventListener("click", () => (live === null ? startLive() : stopLive()));
  byId("camera-select").addEventListener("change", (event) => {
    stopLive();
    // What is hidden loses the focus.
    byId("camera-choice").hidden = false;
    startLive(event.target.value);
  });
  byId("min-face").addEventListener("change", () => {
    if (live === null && chosen !== null) identifyPhoto(chosen);
  });
  new ResizeObserver(() => { if (live === null) draw(); }).observe(byId("stage"));
}

/** The view is shown. */
export async function enter() {
  try {
    const known = await settings();
    [threshold, mayWrite] = [known.threshold, known.may_write];
    byId("ask-turn-choice").hidden = !known.can_challenge;
    settingsFailure?.remove();
  } catch (error) {
    settingsFailure = showFailure(byId("identify-messages"), error, enter);
  }
}

/** The view is hidden: the camera goes off, and what was asked is not asked any more. */
export function leave() {
  for (const dialog of ["name-dialog", "doubt-dialog"]) callOff(byId(dialog));
  stopLive();
}

async function identifyPhoto(original) {
  stopLive();
  request?.abort();
  const own = new AbortController();
  [chosen, request] = [original, own];
  const messages = byId("identify-messages");
  clearMessages(messages);
  showAnswers([], null, "Looking…");
  const photo = await shrunk(original, PHOTO_SIDE_PIXELS);
  if (own.signal.aborted) return;
  sent = photo;
  const image = await showPhoto(photo, own.signal);
  if (own.signal.aborted) return;
  setState("loading");
  announce("Looking at the photo.");
  try {
    const answer = await match(photo, own.signal, true, byId("min-face").value);
    const found = leftToRight(answer.faces);
    const shown = image.naturalWidth > 0 ? image : null;
    showAnswers(found, shown, "There is no face in this photo, or none that is large and clear enough.");
    setState(shown === null ? "unshown" : "photo");
    announce(inWords(found));
    if (shown !== null) image.alt = `The photo. ${inWords(found)}`;
    const remarks = answer.notes.map((note) => `${note}.`);
    if (shown === null) {
      remarks.push("This browser cannot show this kind of photo; the answers are right all the same.");
    }
    if (remarks.length > 0) showMessage(messages, "info", remarks.join(" "));
    if (found.length > 0) await tellAttributes(photo, found, own.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    setState(picture.width > 0 ? "photo" : "unshown");
    showAnswers([], null, "No answer for this photo.");
    showFailure(messages, error, () => identifyPhoto(photo));
  }
}

/** Tell age, gender and expression of the faces, too, where the service is to show them. */
async function tellAttributes(photo, found, signal) {
  try {
    if (!(await settings()).shows_attributes) return;
    const analyzed = await analyze(photo, signal, byId("min-face").value);
    joinAttributes(found, analyzed.faces);
    if (signal.aborted) return;
    addLooks(byId("faces"), found);
    showCaution();
  } catch (error) {
    // The names are there all the same.
    if (error.name !== "AbortError") showFailure(byId("identify-messages"), error);
  }
}

/** Enrol an unknown face of the photo, and look again. */
async function enrolFace(face) {
  const [photo, small] = [chosen, sent];
  const messages = byId("identify-messages");
  // Meanwhile another photo may have taken its place, or the camera.
  const lookAgain = async () => {
    if (chosen === photo && live === null) await identifyPhoto(photo);
    // The button that was pressed is gone; the focus must not be.
    if (document.activeElement === document.body) byId("choose-photo").focus();
  };
  const takeBack = async (change) => {
    try {
      await undo(change);
    } catch (error) {
      showFailure(messages, error, () => takeBack(change));
      return;
    }
    await lookAgain();
    announce("Undone.");
  };
  await askName({
    title: ["Enrol this face"],
    label: "Name",
    verb: "Enrol",
    messages: "identify-messages",
    send: (name) => enrolAsking(name, [small], face.bounding_box),
    onDone: async (report) => {
      await lookAgain();
      const remarks = [`${report.name} is enrolled.`, ...report.notes.map((note) => `${note}.`)];
      const kind = report.notes.length > 0 ? "warning" : "info";
      showMessage(messages, kind, remarks.join(" "),
        report.change === null ? null : { label: "Undo", act: () => takeBack(report.change) });
    },
  });
}

/** Show a photo on the stage; resolves once its size is known, or it is known to be beyond the browser. */
async function showPhoto(photo, signal) {
  const image = byId("stage-photo");
  showPicture(image, photo);
  byId("stage-video").hidden = true;
  image.hidden = false;
  const isShown = await image.decode().then(() => true, () => false);
  // Meanwhile the camera may have taken its place, or another photo.
  if (signal.aborted) return image;
  picture = isShown ? { width: image.naturalWidth, height: image.naturalHeight } : { width: 0, height: 0 };
  image.alt = isShown ? "The photo" : "A photo that this browser cannot show";
  fitStage();
  return image;
}

/** Give the stage the shape of the picture, within what a screen can hold. */
function fitStage() {
  const shape = picture.width > 0 ? picture.width / picture.height : 1.5;
  byId("stage").parentElement.style.setProperty("--shape", String(shape));
}

function setState(state) {
  byId("stage").dataset.state = state;
  byId("stage-invitation").hidden = state !== "empty";
  byId("stage-photo").hidden = !["loading", "photo"].includes(state);
  const unshown = byId("stage-unshown");
  unshown.hidden = state !== "unshown";
  unshown.textContent = unshown.hidden ? "" : `${chosen.name}: no picture here`;
}

function showAnswers(found, source, emptyText) {
  faces = found;
  // A camera that is not open yet may be refused, and the photo stays.
  const mayEnrol = mayWrite && !live?.camera && source !== null;
  showFaces(byId("faces"), faces, source, threshold, mayEnrol ? enrolFace : null);
  const empty = byId("faces-empty");
  empty.hidden = faces.length > 0;
  empty.textContent = emptyText;
  const legend = byId("faces-legend");
  showCaution();
  legend.hidden = threshold === null || !faces.some((face) => face.name !== null);
  legend.textContent = threshold === null ? "" : `where a name begins: similarity ${threshold.toFixed(3)}`;
  draw();
}

function showCaution() {
  const caution = byId("faces-caution");
  caution.textContent = cautionOn(faces);
  caution.hidden = caution.textContent === "";
}

/** The faces as they stand in the picture, so that the list can be read beside it. */
function leftToRight(found) {
  const centre = ({ bounding_box: box }) => box.x + box.width / 2;
  return [...found].sort((a, b) => centre(a) - centre(b));
}

function draw(shown = faces) {
  drawFaces(byId("stage-overlay"), picture, shown);
}

async function startLive(deviceId = null) {
  clearMessages(byId("identify-messages"));
  const button = byId("toggle-camera");
  // Taken now, so that a second press while the browser asks for permission stops it.
  const session = { camera: null, running: true, request: null, busyMessage: null, word: newWord() };
  live = session;
  button.setAttribute("aria-pressed", "true");
  setLabel(button, "Stop the camera");
  const video = byId("stage-video");
  try {
    const camera = await Camera.open(video, deviceId, () => {
      if (live !== session) return;
      stopLive();
      showCameraTrouble("The camera went away.");
    }, () => session.running);
    if (!session.running) {
      camera.close();
      return;
    }
    session.camera = camera;
  } catch (error) {
    if (!(error instanceof CameraError)) throw error;
    if (live !== session) return;
    stopLive();
    showCameraTrouble(error.message);
    return;
  }
  // Only now: a camera that does not open leaves the photo, and the answer that is on its way to it.
  request?.abort();
  clearMessages(byId("identify-messages"));
  showPicture(byId("stage-photo"), null);
  byId("stage-photo").hidden = true;
  video.hidden = false;
  picture = { width: video.videoWidth, height: video.videoHeight };
  fitStage();
  setState("live");
  showAnswers([], null, "Looking…");
  await offerCameras(session.camera.deviceId);
  await look(session);
}

/** What tells this camera's pictures from those of others. */
function newWord() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function showCameraTrouble(text) {
  showMessage(byId("identify-messages"), "error", text, { label: "Try again", act: startLive });
}

function stopLive() {
  if (live === null) return;
  live.running = false;
  live.request?.abort();
  live.busyMessage?.remove();
  live.camera?.close();
  live = null;
  const button = byId("toggle-camera");
  button.setAttribute("aria-pressed", "false");
  setLabel(button, "Use the camera");
  byId("stage-video").hidden = true;
  byId("live-rate").hidden = true;
  byId("camera-choice").hidden = true;
  // Where the camera never opened, what was on the stage before is still there.
  if (byId("stage").dataset.state === "live") {
    setState("empty");
    picture = { width: 0, height: 0 };
    fitStage();
    showAnswers([], null, "The camera is off.");
  }
}

async function offerCameras(current) {
  const cameras = await listCameras();
  byId("camera-choice").hidden = cameras.length < 2 || live === null;
  byId("camera-select").replaceChildren(...cameras.map(({ deviceId, label }) => element(
    "option", { value: deviceId, textContent: label, selected: deviceId === current },
  )));
}

/** One frame after the other, each sent when the answer to the one before has come. */
async function look(session) {
  const gliding = new GlidingFaces();
  const spoken = speaker();
  const paint = (now) => {
    if (!session.running) return;
    draw(gliding.at(now));
    requestAnimationFrame(paint);
  };
  requestAnimationFrame(paint);
  while (session.running) {
    const begun = performance.now();
    try {
      // A page that nobody sees has nothing to look at.
      if (document.hidden) await shownAgain();
      const frame = await session.camera.takeFrame(LIVE_FRAME_SIDE_PIXELS);
      if (!session.running) return;
      session.request = new AbortController();
      const challenge = byId("ask-turn").checked ? session.word : null;
      const answer = await match(frame.blob, session.request.signal, false, byId("min-face").value, challenge);
      const found = leftToRight(answer.faces);
      if (!session.running) return;
      const now = performance.now();
      picture = { width: frame.canvas.width, height: frame.canvas.height };
      gliding.set(found, now);
      showAnswers(found, frame.canvas, "No face in sight.");
      spoken(inWords(found), now);
      showRate(now - begun);
      session.busyMessage?.remove();
    } catch (error) {
      if (!session.running || error.name === "AbortError") return;
      if (error.status === 429 || error.retryAfterSeconds > 0) {
        const seconds = error.retryAfterSeconds || WAIT_WHEN_BUSY_SECONDS;
        session.busyMessage = showMessage(byId("identify-messages"), "warning",
          "The service is busy. The camera goes on in a moment.");
        await pause(seconds * 1000);
        continue;
      }
      stopLive();
      if (error instanceof CameraError) showCameraTrouble(error.message);
      else showFailure(byId("identify-messages"), error, startLive);
      return;
    }
    await pause(LEAST_MILLISECONDS_BETWEEN_FRAMES - (performance.now() - begun));
  }
}

/** Says who is there when that has changed and lasted, not with every frame. */
function speaker() {
  let [said, seen, since] = ["", "", 0];
  return (text, now) => {
    if (text !== seen) [seen, since] = [text, now];
    if (seen !== said && now - since >= ANNOUNCE_AFTER_MILLISECONDS) {
      said = seen;
      announce(said);
    }
  };
}

function showRate(milliseconds) {
  const rate = byId("live-rate");
  rate.hidden = false;
  rate.textContent = `an answer in ${Math.round(milliseconds)} ms`;
}

function pause(milliseconds) {
  return new Promise((resolve) => { setTimeout(resolve, Math.max(0, milliseconds)); });
}

function shownAgain() {
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
  });
}
