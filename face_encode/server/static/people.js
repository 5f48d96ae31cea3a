/** People: who is enrolled, under which name, and who no longer. */

import {
  ServiceError, forgetToken, people, remove, rename, settings, thumbnail,
} from "./api.js";
import {
  announce, ask, byId, callOff, clearMessages, counted, element, iconButton, nameOf, showMessage, showPicture,
} from "./dom.js";
import * as enrolment from "./enrolment.js";
import { showFailure } from "./failures.js";

// A short list is read faster than searched.
const SEARCH_FROM_PEOPLE = 9;

// A picture is fetched when its row is looked at: there may be thousands.
const inSight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    inSight.unobserve(target);
    showThumbnail(target);
  }
}, { rootMargin: "200px" });

let enrolled = [];
let mayWrite = true;
let loads = 0;
// What each row was made of.
const madeOf = new WeakMap();

/** Prepare the view. */
export function start() {
  enrolment.start(load);
  byId("people-search").addEventListener("input", showPeople);
  byId("enrol-jump").addEventListener("click", () => {
    byId("enrol-form").scrollIntoView();
    byId("enrol-name").focus();
  });
}

/** The view is shown. */
export async function enter() {
  byId("people-state").hidden = enrolled.length > 0;
  byId("people-state").textContent = "Loading…";
  await load();
}

/** The view is hidden, and what it asks with it. An enrolment goes on. */
export function leave() {
  for (const dialog of ["rename-dialog", "delete-dialog", "camera-dialog"]) callOff(byId(dialog));
}

async function load() {
  const messages = byId("people-messages");
  loads += 1;
  const own = loads;
  try {
    const known = await settings();
    const everybody = await people();
    // Answers can overtake each other: the last one asked for counts.
    if (own !== loads) return;
    mayWrite = known.may_write;
    enrolled = everybody;
    clearMessages(messages);
    showPeople();
    if (!mayWrite) showReadOnly(known.needs_token);
  } catch (error) {
    if (own !== loads) return;
    byId("people-state").hidden = true;
    showFailure(messages, error, load);
  }
}

/** Who may only look is not offered what would be refused. */
function showReadOnly(needsToken) {
  const action = needsToken
    ? { label: "Use another token", act: () => { forgetToken(); load(); } } : null;
  showMessage(byId("people-messages"), "info",
    "You may look at the people, not change them: that takes a write token.", action);
}

function showPeople() {
  const search = byId("people-search");
  search.hidden = enrolled.length < SEARCH_FROM_PEOPLE;
  const wanted = search.hidden ? "" : folded(search.value);
  const shown = enrolled
    .filter((person) => folded(person.name).includes(wanted))
    .sort((a, b) => a.name.localeCompare(b.name));
  showRows(byId("people"), shown);
  byId("list-heading").textContent =
    enrolled.length > 0 ? `${counted(enrolled.length, "person", "people")} enrolled` : "Enrolled";
  byId("enrol-form").hidden = !mayWrite;
  byId("enrol-jump").hidden = !mayWrite;
  const state = byId("people-state");
  state.hidden = shown.length > 0;
  state.textContent = enrolled.length > 0
    ? "Nobody of that name."
    : `Nobody is enrolled yet.${mayWrite ? " Give a name and a few photos, and the service will know the face." : ""}`;
}

/** Rows that stay are left in place: the focus may be in one, or a finger on one of its buttons. */
function showRows(list, shown) {
  const kept = new Map([...list.children].map((row) => [madeOf.get(row), row]));
  const rows = shown.map((person) => {
    const making = JSON.stringify([person, mayWrite]);
    const row = kept.get(making) ?? personCard(person);
    kept.delete(making);
    madeOf.set(row, making);
    return row;
  });
  for (const row of kept.values()) {
    for (const image of row.querySelectorAll("img")) showPicture(image, null);
    row.remove();
  }
  rows.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  inSight.disconnect();
  for (const frame of list.querySelectorAll("[data-of]")) inSight.observe(frame);
}

function folded(text) {
  return text.normalize("NFKC").toLocaleLowerCase().trim();
}

function personCard(person) {
  const { name } = person;
  const named = (verb) => ({ "aria-label": `${verb} ${name}`, title: verb });
  const text = element("div", { className: "person-text" },
    nameOf(name), element("span", { className: "person-detail", textContent: counted(person.photos, "photo") }));
  const buttons = !mayWrite ? null : element("div", { className: "person-buttons" },
    iconButton("add", "Add", () => enrolment.begin(name), { className: "button small quiet", ...named("Add photos of") }),
    iconButton("edit", "Rename", () => renamePerson(name), { className: "button small quiet", ...named("Rename") }),
    iconButton("delete", "Delete", () => deletePerson(person), { className: "button small quiet", ...named("Delete") }),
  );
  return element("li", { className: "person", dataset: { name } }, portrait(person), text, buttons);
}

/** The thumbnail where one is kept, and the first letter until then. */
function portrait(person) {
  const letter = new Intl.Segmenter().segment(person.name).containing(0)?.segment ?? "";
  const frame = element("div", { className: "portrait", "aria-hidden": "true", textContent: letter });
  if (person.thumbnail) frame.dataset.of = person.name;
  return frame;
}

async function showThumbnail(frame) {
  try {
    const blob = await thumbnail(frame.dataset.of);
    // Meanwhile the list may have been drawn anew.
    if (!frame.isConnected) return;
    const image = frame.querySelector("img") ?? element("img", { alt: "" });
    showPicture(image, blob);
    frame.replaceChildren(image);
  } catch (error) {
    // The letter stays: a missing picture keeps nobody from managing people.
    if (!(error instanceof ServiceError)) throw error;
  }
}

async function renamePerson(name) {
  const [dialog, input, problem] = [byId("rename-dialog"), byId("rename-input"), byId("rename-error")];
  byId("rename-heading").replaceChildren("Rename ", nameOf(name));
  problem.hidden = true;
  input.value = name;
  let [renamed, isOpen, isSending] = [name, true, false];
  // The dialog stays open until the service has agreed, so that a name it refuses can be mended.
  byId("rename-form").onsubmit = async (event) => {
    event.preventDefault();
    if (isSending) return;
    const wanted = input.value.trim();
    isSending = true;
    try {
      if (wanted === "") throw new ServiceError("A name is needed.", 0);
      if (wanted !== name) await rename(name, wanted);
      renamed = wanted;
      // Called off too late, it may be open for somebody else by now.
      if (isOpen) dialog.close("confirm");
      else await showRenamed(name, renamed);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      if (!isOpen) {
        showFailure(byId("people-messages"), error);
        return;
      }
      problem.textContent = error.message;
      problem.hidden = false;
      input.focus();
    } finally {
      isSending = false;
    }
  };
  const answer = ask(dialog);
  input.select();
  const isConfirmed = await answer;
  isOpen = false;
  if (renamed !== name) await showRenamed(name, renamed);
  if (isConfirmed) focusPerson(renamed, "Rename");
}

async function showRenamed(name, renamed) {
  await load();
  announce(`${name} is now called ${renamed}.`);
}

async function deletePerson(person) {
  const { name, photos } = person;
  byId("delete-heading").replaceChildren("Delete ", nameOf(name), "?");
  byId("delete-text").textContent =
    `The service forgets this person and what it learnt from ${counted(photos, "photo")}. This cannot be undone.`;
  const answer = ask(byId("delete-dialog"));
  byId("delete-cancel").focus();
  if (!(await answer)) return;
  const row = rowOf(name);
  const next = (row?.nextElementSibling ?? row?.previousElementSibling)?.dataset.name;
  try {
    await remove(name);
  } catch (error) {
    showFailure(byId("people-messages"), error);
    return;
  }
  await load();
  announce(`${name} is deleted.`);
  focusPerson(next, "Delete");
}

function rowOf(name) {
  return [...byId("people").children].find((row) => row.dataset.name === name);
}

/** The button that was pressed is gone; the focus must not be, unless it has gone on already. */
function focusPerson(name, verb) {
  if (document.activeElement !== document.body) return;
  const button = [...(rowOf(name)?.querySelectorAll("button") ?? [])].find((each) => each.title === verb);
  (button ?? byId("people-heading")).focus();
}
