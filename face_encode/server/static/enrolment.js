/** Enrolment: a name, photos, and row by row what became of them. */

import { enrolAsking } from "./asking.js";
import { announce, byId, clearMessages, counted, element, icon, nameOf, setLabel, showMessage } from "./dom.js";
import { showFailure } from "./failures.js";
import { acceptPhotos, shrunk, withOwnNames } from "./photos.js";
import { showShots, takeShots } from "./shots.js";

// One face fills most of such a photo.
const PHOTO_SIDE_PIXELS = 2000;

let photos = [];
// Those on their way to the service; they stay in sight until it has them.
let sending = [];
// Whether somebody gave a name since the last one was sent.
let isNamedAnew = false;
let reload = async () => {};

/**
 * Prepare the form.
 *
 * @param {function(object): Promise} onEnrolled Called with the report when somebody was enrolled.
 */
export function start(onEnrolled) {
  reload = onEnrolled;
  acceptPhotos({
    zone: byId("enrol-drop"),
    button: byId("enrol-choose"),
    input: byId("enrol-files"),
    wantsPaste: () => !byId("people-view").hidden && !byId("enrol-form").hidden,
    onPhotos: addPhotos,
    onRefusal: (reason) => showFieldError("enrol-photos-error", reason),
  });
  byId("enrol-camera").addEventListener("click", async () => {
    addPhotos(await takeShots({
      title: "Take photos",
      hint: "Three or more: turn your head a little between two of them.",
      several: true,
    }));
  });
  byId("enrol-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("enrol-name").addEventListener("input", () => {
    isNamedAnew = true;
    showFieldError("enrol-name-error", "");
  });
  refresh();
}

/** Begin with a name that is given, to add photos of somebody. */
export function begin(name) {
  byId("enrol-name").value = name;
  isNamedAnew = true;
  showFieldError("enrol-name-error", "");
  byId("enrol-form").scrollIntoView({ block: "nearest" });
  byId("enrol-choose").focus();
}

function addPhotos(more) {
  if (more.length === 0) return;
  photos = withOwnNames([...photos, ...more]);
  showFieldError("enrol-photos-error", "");
  byId("enrol-report").hidden = true;
  refresh();
  announce(`${counted(unsent().length, "photo")} to enrol.`);
}

function unsent() {
  return photos.filter((photo) => !sending.includes(photo));
}

function refresh() {
  showShots(byId("enrol-shots"), photos, (photo) => {
    photos = photos.filter((each) => each !== photo);
    refresh();
    byId("enrol-choose").focus();
  }, sending);
  byId("enrol-drop-lead").hidden = photos.length > 0;
  const button = byId("enrol-submit");
  if (sending.length > 0) {
    // Not `disabled`: that would take the focus away from who works by keyboard.
    button.setAttribute("aria-disabled", "true");
    setLabel(button, "Enrolling…");
    return;
  }
  button.removeAttribute("aria-disabled");
  setLabel(button, photos.length > 0 ? `Enrol ${counted(photos.length, "photo")}` : "Enrol");
}

function showFieldError(id, text) {
  const place = byId(id);
  place.textContent = text;
  place.hidden = text === "";
  if (id === "enrol-name-error") {
    if (text === "") byId("enrol-name").removeAttribute("aria-invalid");
    else byId("enrol-name").setAttribute("aria-invalid", "true");
  }
}

async function submit() {
  if (sending.length > 0) return;
  const name = byId("enrol-name").value.trim();
  showFieldError("enrol-name-error", name === "" ? "A name is needed." : "");
  showFieldError("enrol-photos-error", photos.length === 0 ? "At least one photo is needed." : "");
  if (name === "" || photos.length === 0) {
    byId(name === "" ? "enrol-name" : "enrol-choose").focus();
    announce(name === "" ? "A name is needed." : "At least one photo is needed.");
    return;
  }
  const messages = byId("enrol-messages");
  clearMessages(messages);
  byId("enrol-report").hidden = true;
  const sent = photos;
  sending = sent;
  isNamedAnew = false;
  const focused = document.activeElement;
  refresh();
  try {
    const small = await Promise.all(sent.map((photo) => shrunk(photo, PHOTO_SIDE_PIXELS)));
    const report = await enrolAsking(name, small);
    if (report === null) {
      showMessage(messages, "info", "Nobody was enrolled.");
      return;
    }
    // What came meanwhile is for the next time, and under a name of its own: it need not be of the
    // same person.
    photos = unsent();
    if (!isNamedAnew) byId("enrol-name").value = "";
    await reload(report);
    showReport(sent, report);
  } catch (error) {
    showFailure(messages, error);
    if (error.leftOut.length > 0) showReport(sent, { name, enrolled: 0, left_out: error.leftOut, notes: [] });
  } finally {
    sending = [];
    refresh();
  }
  // Whoever has gone on to something else is not called back.
  if (document.activeElement === focused && !isNamedAnew) byId("enrol-report").focus();
}

/** A row for each photo, and below them what else was noticed. */
function showReport(sent, report) {
  const { name } = report;
  const reasons = new Map(report.left_out.map((item) => [item.photo, item.reason]));
  const rows = sent.map((photo) => {
    const reason = reasons.get(photo.name);
    const known = reason === undefined;
    return element("li", { className: known ? "row good" : "row bad" },
      icon(known ? "known" : "warning"),
      element("span", { className: "row-photo", textContent: photo.name }),
      element("span", { className: "row-text", textContent: known ? "enrolled" : reason }));
  });
  // A warning that belongs to no photo of this time would otherwise be lost.
  for (const [photo, reason] of reasons) {
    if (!sent.some((each) => each.name === photo)) {
      rows.push(element("li", { className: "row bad" }, icon("warning"),
        element("span", { className: "row-photo", textContent: photo }),
        element("span", { className: "row-text", textContent: reason })));
    }
  }
  const notes = report.notes.map((note) => element(
    "li", { className: "row note" }, icon("warning"), element("span", { className: "row-text", textContent: note }),
  ));
  const place = byId("enrol-report");
  place.replaceChildren(
    element("h3", {}, nameOf(name), ` · ${counted(report.enrolled, "photo")} enrolled`),
    element("ul", { className: "rows" }, ...rows),
  );
  if (notes.length > 0) {
    place.append(element("h4", { textContent: "Worth a second look" }),
      element("ul", { className: "rows" }, ...notes));
  }
  place.hidden = false;
  const leftOut = report.left_out.length > 0 ? `, ${report.left_out.length} left out` : "";
  announce(`${name}: ${counted(report.enrolled, "photo")} enrolled${leftOut}.`);
}
