/** Cameras: what the service's cameras show, who is there, and who was lately. */

import { ServiceError, cameraEvents, cameraFrame, cameras } from "./api.js";
import { announce, byId, clearMessages, element, icon, nameOf, showPicture } from "./dom.js";
import { showFailure } from "./failures.js";

const STATE_MILLISECONDS = 1000;
const FRAME_MILLISECONDS = 250;
// After a failure that may pass by itself.
const AGAIN_MILLISECONDS = 3000;
const FRAME_PIXELS = 720;
const SHOWN_EVENTS = 12;

const DID = { arrived: "is there", renamed: "is who was unknown", left: "has left" };

// Ends what a visit of the view asks for; null while it is hidden.
let visit = null;
// The number of the last event that was shown.
let last = 0;

// Pictures are asked for only where they are looked at.
const inSight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.inSight = String(isIntersecting);
    if (visit !== null) play(target, visit.signal);
  }
});

/** Prepare the view. */
export function start() {
  document.addEventListener("visibilitychange", () => {
    if (visit === null) return;
    // Who does not look needs no pictures.
    visit.abort();
    if (!document.hidden) enter();
  });
}

/** The view is shown. */
export function enter() {
  visit = new AbortController();
  watch(visit.signal);
}

/** The view is hidden: nothing is asked any more. */
export function leave() {
  visit?.abort();
  visit = null;
  for (const card of byId("cameras").children) showPicture(card.querySelector("img"), null);
}

/** Keep up with the cameras for as long as they are looked at. */
async function watch(signal) {
  while (!signal.aborted) {
    let pause = STATE_MILLISECONDS;
    try {
      const [states, events] = [await cameras(signal), await cameraEvents(last, signal)];
      if (signal.aborted) return;
      clearMessages(byId("cameras-messages"));
      showCameras(states, signal);
      showEvents(events);
    } catch (error) {
      if (signal.aborted) return;
      byId("cameras-state").hidden = true;
      showFailure(byId("cameras-messages"), error, () => {
        visit?.abort();
        enter();
      }, false);
      // Without a token it would only be asked for again and again.
      if (error.status === 401 || error.status === 403) return;
      pause = Math.max(AGAIN_MILLISECONDS, 1000 * error.retryAfterSeconds);
    }
    await passed(pause, signal);
  }
}

function showCameras(states, signal) {
  const state = byId("cameras-state");
  state.hidden = states.length > 0;
  state.textContent = "This service watches no camera. Start it with --camera NAME=SOURCE for each.";
  const list = byId("cameras");
  const cards = new Map([...list.children].map((card) => [card.dataset.name, card]));
  for (const camera of states) {
    const card = cards.get(camera.name) ?? newCard(camera.name);
    cards.delete(camera.name);
    if (!card.isConnected) list.append(card);
    update(card, camera);
    play(card, signal);
  }
  for (const card of cards.values()) card.remove();
}

function newCard(name) {
  const card = element("article", { className: "watched", dataset: { name } },
    element("div", { className: "stage" },
      icon("cameras"), element("img", { className: "stage-media", hidden: true })),
    element("div", { className: "watched-text" },
      element("h2", {}, nameOf(name)), element("p", { className: "watched-state" }),
      element("ul", { className: "there", "aria-label": `Who is there, ${name}` })));
  inSight.observe(card);
  return card;
}

function update(card, camera) {
  const image = card.querySelector("img");
  const names = camera.people.map(called);
  // Of a camera that shows nothing, nobody knows.
  const empty = camera.state === "live" ? "Nobody is there." : "Who is there cannot be told.";
  const alt = `${camera.name}: ${names.length > 0 ? names.join(", ") : empty}`;
  // What did not change is left alone: it may just be read aloud.
  if (image.alt !== alt) image.alt = alt;
  card.dataset.state = camera.state;
  const words = stateWords(camera);
  const state = card.querySelector(".watched-state");
  if (state.textContent !== words) {
    state.replaceChildren(icon(camera.state === "live" ? "known" : "warning"), words);
  }
  const there = card.querySelector(".there");
  const made = JSON.stringify([camera.people, empty]);
  if (there.dataset.made === made) return;
  there.dataset.made = made;
  there.replaceChildren(...(names.length > 0
    ? camera.people.map((person) => element("li", { dataset: { known: String(person.name !== null) } },
      icon(person.name === null ? "unknown" : "known"), nameOf(called(person))))
    : [element("li", { className: "nobody", textContent: empty })]));
}

function stateWords({ state, since, detail, frames_per_second: rate, lost_events: lost }) {
  switch (state) {
    case "live": return `Live, ${rate} pictures a second looked at${lost > 0 ? `; events not written: ${lost}` : ""}`;
    case "connecting": return "Connecting…";
    case "stalled": return `No picture since ${clock(since)}`;
    case "wrong-password": return "Wrong name or password (401)";
    default: return `Away since ${clock(since)}: ${detail}`;
  }
}

/** Show the pictures of a camera one after the other, for as long as it is live and in sight. */
async function play(card, signal) {
  if (card.dataset.isPlaying === "true") return;
  card.dataset.isPlaying = "true";
  const image = card.querySelector("img");
  while (!signal.aborted && card.isConnected && card.dataset.state === "live" && card.dataset.inSight === "true") {
    const asked = performance.now();
    try {
      const picture = await cameraFrame(card.dataset.name, FRAME_PIXELS, signal);
      if (signal.aborted) break;
      showPicture(image, picture);
      image.hidden = false;
    } catch (error) {
      if (!(error instanceof ServiceError) && error.name !== "AbortError") throw error;
      // The state, asked for once a second, says what is wrong.
      break;
    }
    await passed(FRAME_MILLISECONDS - (performance.now() - asked), signal);
  }
  card.dataset.isPlaying = "false";
}

function showEvents(events) {
  const isFirst = last === 0;
  const told = [];
  const list = byId("camera-events");
  for (const event of events) {
    last = event.number;
    // Where an unknown person turned out to be somebody who is there, nobody has left.
    if (!(event.event in DID) || event.continued_as !== undefined) continue;
    list.prepend(element("li", { className: "row" },
      element("time", { dateTime: event.to_time, textContent: clock(event.to_time) }),
      element("span", {}, nameOf(called(event)), ` ${DID[event.event]}, `, element("bdi", { textContent: event.source }))));
    told.push(`${called(event)} ${DID[event.event]}, ${event.source}.`);
  }
  while (list.children.length > SHOWN_EVENTS) list.lastChild.remove();
  byId("lately").hidden = list.children.length === 0;
  if (!isFirst && told.length > 0) announce(told.join(" "));
}

/** A stranger is told by a number where strangers are kept. */
function called({ name, unknown }) {
  return name ?? unknown ?? "unknown";
}

function clock(time) {
  return new Date(time).toLocaleTimeString([], { timeStyle: "medium" });
}

/** Wait; a visit that ends meanwhile ends the wait. */
function passed(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.max(0, milliseconds));
    signal.addEventListener("abort", end);
  });
}
