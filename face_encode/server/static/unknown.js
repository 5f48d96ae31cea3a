/** Unknown: people without a name, whom cameras have seen or photos show, and how they get one. */

import {
  ServiceError, dismissUnknown, mergeUnknown, nameUnknown, people, settings, undo, unknownCrop, unknownPeople,
} from "./api.js";
import {
  announce, ask, byId, callOff, clearMessages, counted, element, icon, iconButton, showMessage, showPicture,
  showWhenSeen,
} from "./dom.js";
import { showFailure } from "./failures.js";
import { askName } from "./naming.js";

// Sources that are named of a person; there may be a photo for each face.
const SHOWN_SOURCES = 3;

let [listed, total] = [[], 0];
let mayWrite = true;
let loads = 0;
// What each card was made of.
const madeOf = new WeakMap();

/** Prepare the view. */
export function start() {
  byId("unknown-more").addEventListener("click", () => load(listed));
}

/** The view is shown. */
export async function enter() {
  byId("unknown-state").hidden = listed.length > 0;
  byId("unknown-state").textContent = "Loading…";
  await load();
}

/** The view is hidden, and what it asks with it. */
export function leave() {
  for (const dialog of ["name-dialog", "delete-dialog"]) callOff(byId(dialog));
}

/** List who has no name, after those of the list already where that is given. */
async function load(before = []) {
  const messages = byId("unknown-messages");
  loads += 1;
  const own = loads;
  try {
    const known = await settings();
    // What is shown stays.
    const found = await unknownPeople(before.length, before.length === 0 ? listed.length : 0);
    const names = known.may_write ? (await people("", 0)).people.map((person) => person.name) : [];
    // Answers can overtake each other: the last one asked for counts.
    if (own !== loads) return;
    mayWrite = known.may_write;
    // Who came first meanwhile has moved the others on: some of those may be listed already.
    const further = found.people.filter(({ id }) => !before.some((person) => person.id === id));
    [listed, total] = [[...before, ...further], found.total];
    byId("unknown-names").replaceChildren(...names.map((name) => element("option", { value: name })));
    clearMessages(messages);
    showCards();
    if (!mayWrite) {
      showMessage(messages, "info", "You may look at them, not name them: that takes a write token.");
    }
  } catch (error) {
    if (own !== loads) return;
    byId("unknown-state").hidden = true;
    showFailure(messages, error, () => load());
  }
}

/** Cards that stay are left in place: somebody may be typing a name into one. */
function showCards() {
  const list = byId("unknown");
  const kept = new Map([...list.children].map((card) => [madeOf.get(card), card]));
  const typing = document.activeElement.closest("#unknown .stranger-form input")?.closest(".stranger").dataset.id;
  const cards = listed.map((person) => {
    const making = JSON.stringify([person, mayWrite]);
    const card = kept.get(making) ?? cardOf(person);
    kept.delete(making);
    madeOf.set(card, making);
    return card;
  });
  for (const card of kept.values()) {
    for (const image of card.querySelectorAll("img")) showPicture(image, null);
    card.remove();
  }
  cards.forEach((card, index) => {
    if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
  });
  // A card that was moved, or made anew as its person was seen again, has lost the focus.
  cardWith(typing)?.querySelector("input")?.focus();
  byId("unknown-more").hidden = listed.length >= total;
  const state = byId("unknown-state");
  state.hidden = listed.length > 0;
  state.textContent = "Nobody. Whom face-encode watch sees and does not know will stand here for some days.";
}

function cardOf(person) {
  const faces = person.faces.map((face) => {
    const frame = element("li", { className: "stranger-face" }, icon("unknown"));
    const where = face.source === "" ? "" : `, ${face.source}`;
    showWhenSeen(frame, `A face of ${person.id}${where}, ${shownTime(face.seen_at)}`, () => unknownCrop(face.id));
    return frame;
  });
  return element("li", { className: "stranger", dataset: { id: person.id } },
    element("ul", { className: "stranger-faces", "aria-label": `Faces of ${person.id}` }, ...faces),
    element("h2", { textContent: person.id }),
    element("p", { className: "person-detail", textContent: seenText(person) }),
    element("p", {
      className: "person-detail", textContent: `Deleted after ${shownTime(person.expires_at)}, unless seen again.`,
    }),
    mayWrite ? nameForm(person) : null,
    mayWrite ? element("div", { className: "stranger-buttons" },
      iconButton("merge", "Merge", () => mergePerson(person), named("Merge", person)),
      iconButton("delete", "Dismiss", () => dismissPerson(person), named("Dismiss", person))) : null);
}

function named(verb, { id }) {
  return { className: "button small quiet", "aria-label": `${verb} ${id}`, title: verb };
}

function seenText(person) {
  const sources = [...new Set(person.faces.map((face) => face.source).filter((source) => source !== ""))];
  const more = sources.length - SHOWN_SOURCES;
  const where = sources.slice(0, SHOWN_SOURCES).join(", ") + (more > 0 ? ` and ${more} more` : "");
  const seen = `Seen ${counted(person.seen, "time")}, last on ${shownTime(person.last_seen)}`;
  return where === "" ? seen : `${seen} · ${where}`;
}

function shownTime(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** The field for the name; it stays as it is until the service has agreed. */
function nameForm(person) {
  const problem = element("p", { className: "field-error", role: "alert", hidden: true });
  const input = element("input", {
    type: "text", placeholder: "Who is this?", autocomplete: "off", spellcheck: false, dir: "auto",
    "aria-label": `Name of ${person.id}`,
    // What was typed into the card before this one.
    value: cardWith(person.id)?.querySelector("input")?.value ?? "",
  });
  // A property of this name cannot be set.
  input.setAttribute("list", "unknown-names");
  const form = element("form", { className: "stranger-form", noValidate: true }, input,
    element("button", { type: "submit", className: "button primary small", textContent: "Name" }), problem);
  let isSending = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isSending) return;
    isSending = true;
    problem.hidden = true;
    try {
      const name = input.value.trim();
      if (name === "") throw new ServiceError("A name is needed.", 0);
      const answer = await nameUnknown(person.id, name);
      await changed(person.id, `${person.id} is ${answer.name} now: ${counted(answer.photos, "photo")} enrolled.`,
        answer.change);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      if (error.status === 404) {
        await gone(error);
        return;
      }
      problem.textContent = error.message;
      problem.hidden = false;
      input.focus();
    } finally {
      isSending = false;
    }
  });
  return form;
}

async function mergePerson({ id }) {
  await askName({
    title: [`Merge ${id} with another`],
    label: "The one who stays, such as unknown-7",
    verb: "Merge",
    names: listed.map((person) => person.id).filter((other) => other !== id),
    messages: "unknown-messages",
    send: (wanted) => mergeUnknown(id, wanted),
    onDone: (answer) => changed(id, `${id} and ${answer.id} are one person now, ${answer.id}.`, null, answer.id),
  });
}

async function dismissPerson({ id, faces }) {
  byId("delete-heading").replaceChildren(`Dismiss ${id}?`);
  byId("delete-text").textContent =
    `${counted(faces.length, "face is", "faces are")} deleted, for good. Seen again, the person gets a new number.`;
  const answer = ask(byId("delete-dialog"));
  byId("delete-cancel").focus();
  if (!(await answer)) return;
  try {
    await dismissUnknown(id);
  } catch (error) {
    if (error.status === 404) await gone(error);
    else showFailure(byId("unknown-messages"), error);
    return;
  }
  await changed(id, `${id} is dismissed.`, null);
}

/** After a change by which somebody is gone from the list: say so, and go on with the next. */
async function changed(id, text, change, stays = null) {
  const card = cardWith(id);
  const next = (card?.nextElementSibling ?? card?.previousElementSibling)?.dataset.id;
  await load();
  told(text, change);
  focus(stays ?? next);
}

/** Say what was changed, and offer to undo it. */
function told(text, change) {
  announce(text);
  showMessage(byId("unknown-messages"), "info", text,
    change === null ? null : { label: "Undo", act: () => takeBack(change) });
}

async function takeBack(change) {
  try {
    await undo(change);
  } catch (error) {
    showFailure(byId("unknown-messages"), error, () => takeBack(change));
    return;
  }
  await load();
  told("Undone.", null);
  focus(listed[0]?.id);
}

/** Whoever was named or deleted elsewhere is no longer listed either. */
async function gone(error) {
  await load();
  showFailure(byId("unknown-messages"), error);
  focus(listed[0]?.id);
}

function cardWith(id) {
  return [...byId("unknown").children].find((card) => card.dataset.id === id);
}

/** The card that was used is gone; the focus must not be, unless it has gone on already. */
function focus(id) {
  if (document.activeElement !== document.body) return;
  (cardWith(id)?.querySelector("input") ?? byId("unknown-heading")).focus();
}
