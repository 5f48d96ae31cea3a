/** People: who is enrolled, under which name, and who no longer. */

import { ServiceError, forgetToken, merge, people, remove, rename, setThreshold, settings, undo } from "./api.js";
import {
  announce, ask, byId, callOff, clearMessages, counted, element, iconButton, nameOf, showMessage, showPicture,
} from "./dom.js";
import * as enrolment from "./enrolment.js";
import { showFailure } from "./failures.js";
import { askName } from "./naming.js";
import { portrait, showPhotos } from "./person.js";

// A short list is read faster than searched.
const SEARCH_FROM_PEOPLE = 9;

// Those who are listed; how many there are of whom was looked for, and of all.
let [listed, total, everybody] = [[], 0, 0];
let mayWrite = true;
let loads = 0;
// What was looked for when they were listed.
let listedFor = "";
// Whose photos are shown.
let opened = null;
// What each row was made of.
const madeOf = new WeakMap();

/** Prepare the view. */
export function start() {
  enrolment.start(async ({ name, enrolled, reused, change }) => {
    await load();
    if (change !== null) told(`${counted(enrolled - reused, "photo")} of ${name} enrolled.`, change);
  });
  byId("people-search").addEventListener("input", () => load());
  byId("people-more").addEventListener("click", () => load(listed));
  byId("enrol-jump").addEventListener("click", () => {
    byId("enrol-form").scrollIntoView();
    byId("enrol-name").focus();
  });
}

/** The view is shown. */
export async function enter() {
  byId("people-state").hidden = listed.length > 0;
  byId("people-state").textContent = "Loading…";
  await load();
}

/** The view is hidden, and what it asks with it. An enrolment goes on. */
export function leave() {
  for (const dialog of ["name-dialog", "delete-dialog", "camera-dialog", "doubt-dialog"]) callOff(byId(dialog));
}

/**
 * List the people that are looked for, after those of the list already where that is given; else at
 * least as many as are listed.
 */
async function load(before = [], least = listed.length) {
  const messages = byId("people-messages");
  const wanted = byId("people-search").value.trim();
  loads += 1;
  const own = loads;
  // What is listed of another search is not gone on with.
  if (wanted !== listedFor) before = [];
  // What is shown stays, and who is opened in it.
  const count = wanted === listedFor && before.length === 0 ? least : 0;
  try {
    const known = await settings();
    const found = await people(wanted, before.length, count);
    // Answers can overtake each other: the last one asked for counts.
    if (own !== loads) return;
    mayWrite = known.may_write;
    // Somebody enrolled meanwhile has moved the others on: some of those may be listed already.
    const names = new Set(before.map(({ name }) => name));
    const further = found.people.filter(({ name }) => !names.has(name));
    // Those who moved them on are not among them.
    if (further.length < found.people.length) return load([], before.length + found.people.length);
    [listed, total, everybody, listedFor] = [[...before, ...further], found.total, known.people, wanted];
    clearMessages(messages);
    showPeople();
    if (!mayWrite) showReadOnly(known.needs_token);
  } catch (error) {
    if (own !== loads) return;
    byId("people-state").hidden = true;
    showFailure(messages, error, () => load());
    return;
  }
  await showOpened();
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
  search.hidden = everybody < SEARCH_FROM_PEOPLE && search.value === "";
  showRows(byId("people"), listed);
  byId("people-more").hidden = listed.length >= total;
  byId("list-heading").textContent =
    everybody > 0 ? `${counted(everybody, "person", "people")} enrolled` : "Enrolled";
  byId("enrol-form").hidden = !mayWrite;
  byId("enrol-jump").hidden = !mayWrite;
  const state = byId("people-state");
  state.hidden = listed.length > 0;
  state.textContent = search.value.trim() !== ""
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
    givePicturesBack(row);
    row.remove();
  }
  rows.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
}

function givePicturesBack(place) {
  for (const image of place.querySelectorAll("img")) showPicture(image, null);
}

function personCard(person) {
  const { name } = person;
  const named = (verb) => ({ className: "button small quiet", "aria-label": `${verb} ${name}`, title: verb });
  const text = element("span", { className: "person-text" }, nameOf(name),
    element("span", { className: "person-detail", textContent: counted(person.photos, "photo") }),
    person.threshold === null ? null
      : element("span", { className: "person-detail", textContent: `named from ${person.threshold} on` }),
    person.note === "" ? null : element("span", { className: "person-detail", textContent: person.note }));
  const opener = element("button", {
    type: "button", className: "person-open", title: "Photos", "aria-expanded": "false", onclick: () => open(name),
  }, portrait(person), text);
  const buttons = !mayWrite ? null : element("div", { className: "person-buttons" },
    iconButton("add", "Add", () => enrolment.begin(name), { ...named("Add"), "aria-label": `Add photos of ${name}` }),
    iconButton("edit", "Rename", () => renamePerson(name), named("Rename")),
    iconButton("merge", "Merge", () => mergePerson(name), named("Merge")),
    iconButton("delete", "Delete", () => deletePerson(person), named("Delete")),
  );
  const photos = element("ul", { className: "photos", hidden: true, "aria-label": `Photos of ${name}` });
  return element("li", { className: "person", dataset: { name } }, opener, buttons, photos, thresholdOf(person));
}

/** What similarity names a person, shown with the photos. */
function thresholdOf({ name, threshold }) {
  const text = threshold === null ? "Named from the same similarity on as everybody. "
    : `Named from a similarity of ${threshold} on, whatever holds for others. `;
  return element("p", { className: "person-threshold person-detail", hidden: true }, text,
    !mayWrite ? null : element("button", {
      type: "button", className: "button small", textContent: "Threshold", title: "Threshold",
      "aria-label": `Threshold of ${name}`, onclick: () => changeThreshold(name, threshold),
    }));
}

/** Show the photos of a person, or no longer. */
async function open(name) {
  opened = opened === name ? null : name;
  await showOpened();
}

async function showOpened() {
  for (const row of byId("people").children) {
    const [isOpened, photos] = [row.dataset.name === opened, row.querySelector(".photos")];
    row.querySelector(".person-open").setAttribute("aria-expanded", String(isOpened));
    givePicturesBack(photos);
    if (!isOpened) photos.replaceChildren();
    photos.hidden = !isOpened;
    row.querySelector(".person-threshold").hidden = !isOpened;
  }
  const [name, row] = [opened, rowOf(opened)];
  if (row === undefined) return;
  await showPhotos(row.querySelector(".photos"), name, {
    mayWrite,
    names: others(name),
    onChange: (text, change) => {
      // The picture may be another one, which nothing else in the row tells.
      madeOf.set(row, {});
      return changed(text, change);
    },
    // Closed, and not asked for again: somebody may be listed whose photos are not found.
    onGone: () => {
      if (opened === name) opened = null;
      return load();
    },
  });
}

function others(name) {
  return listed.map((person) => person.name).filter((other) => other !== name);
}

/** After a change of a person's photos. */
async function changed(text, change) {
  await load();
  told(text, change);
  focusPerson(opened, "Photos");
}

/** Say what was changed, and offer to undo it. */
function told(text, change) {
  announce(text);
  showMessage(byId("people-messages"), "info", text,
    change === null ? null : { label: "Undo", act: () => takeBack(change) });
}

async function takeBack(change) {
  try {
    await undo(change);
  } catch (error) {
    showFailure(byId("people-messages"), error, () => takeBack(change));
    return;
  }
  await load();
  told("Undone.", null);
  focusPerson(opened, "Photos");
}

async function renamePerson(name) {
  await askName({
    title: ["Rename ", nameOf(name)],
    label: "New name",
    verb: "Rename",
    value: name,
    send: (wanted) => (wanted === name ? { name, change: null } : orGone(rename(name, wanted))),
    onDone: async (answer) => {
      if (answer.change !== null) {
        if (opened === name) opened = answer.name;
        await load();
        told(`${name} is now called ${answer.name}.`, answer.change);
      }
      focusPerson(answer.name, "Rename");
    },
  });
}

async function changeThreshold(name, threshold) {
  await askName({
    title: ["Threshold of ", nameOf(name)],
    label: "Similarity from which a face is this person’s, up to 1; empty: as everybody",
    verb: "Set",
    value: threshold === null ? "" : String(threshold),
    mayBeEmpty: true,
    send: (text) => {
      const value = text === "" ? null : Number(text.replace(",", "."));
      if (value !== null && !Number.isFinite(value)) throw new ServiceError("A number is needed, such as 0.93.", 0);
      return orGone(setThreshold(name, value));
    },
    onDone: async (answer) => {
      if (answer.change !== null) {
        await load();
        const now = answer.threshold === null ? "as everybody" : `from a similarity of ${answer.threshold} on`;
        told(`${name} is named ${now}.`, answer.change);
      }
      focusPerson(name, "Threshold");
    },
  });
}

async function mergePerson(name) {
  await askName({
    title: ["Merge ", nameOf(name), " with another person"],
    label: "The name that stays",
    verb: "Merge",
    names: others(name),
    send: (wanted) => orGone(merge(name, wanted)),
    onDone: async (answer) => {
      await load();
      told(`${name} and ${answer.name} are one person now, ${answer.name}.`, answer.change);
      focusPerson(answer.name, "Photos");
    },
  });
}

async function deletePerson(person) {
  const { name, photos } = person;
  byId("delete-heading").replaceChildren("Delete ", nameOf(name), "?");
  byId("delete-text").textContent =
    `The service forgets this person and what it learnt from ${counted(photos, "photo")}. This can be undone for as long as it runs.`;
  const answer = ask(byId("delete-dialog"));
  byId("delete-cancel").focus();
  if (!(await answer)) return;
  const row = rowOf(name);
  const next = (row?.nextElementSibling ?? row?.previousElementSibling)?.dataset.name;
  let change;
  try {
    ({ change } = await orGone(remove(name)));
  } catch (error) {
    showFailure(byId("people-messages"), error);
    focusPerson(next, "Delete");
    return;
  }
  await load();
  told(`${name} is deleted.`, change);
  focusPerson(next, "Delete");
}

/** Pass an answer on; whom the service does not know any more is no longer listed either. */
async function orGone(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.status === 404) await load();
    throw error;
  }
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
