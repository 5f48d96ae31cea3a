/** The service's interface: one function a request, one kind of error. */

import { ask, byId } from "./dom.js";
import { namesOf, unreadable } from "./photos.js";

const TOKEN_KEY = "face_encode.token";
const KEPT_TIMES = 200;

/** What the service, or the way to it, has to say about a request that failed. */
export class ServiceError extends Error {
  /**
   * @param {string} detail In words for people.
   * @param {number} status HTTP status; 0 where there was no answer at all.
   * @param {number} retryAfterSeconds How long the service asks to wait; 0 where it does not.
   * @param {Array<object>} leftOut Of an enrolment: `photo` and `reason`, a row each.
   */
  constructor(detail, status, retryAfterSeconds = 0, leftOut = []) {
    super(detail);
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
    this.leftOut = leftOut;
  }
}

/** Milliseconds from asking to the answer, of the last matches in this tab. */
export const matchTimes = [];

let asking = null;

/**
 * Name the faces in a photo: `faces`, and `notes` on what was not looked for.
 *
 * @param {Blob} photo
 * @param {AbortSignal} signal
 * @param {boolean} thorough Whether a slower detector looks where the fast one finds nobody.
 * @param {string} minFace Side of the smallest face, in pixels; empty for the service's own.
 * @param {?string} challenge The camera's word, where heads are to turn; null where nobody is asked.
 */
export async function match(photo, signal, thorough, minFace, challenge = null) {
  const begun = performance.now();
  const query = new URLSearchParams({ thorough });
  if (minFace !== "") query.set("min_face", minFace);
  if (challenge !== null) query.set("challenge", challenge);
  const answer = await request("POST", `v1/match?${query}`, { body: form({ photo }), signal });
  matchTimes.push(performance.now() - begun);
  if (matchTimes.length > KEPT_TIMES) matchTimes.shift();
  return answer;
}

/** Tell age, gender and expression of the faces in a photo: `faces`. */
export function analyze(photo, signal, minFace) {
  const query = minFace === "" ? "" : `?min_face=${minFace}`;
  return request("POST", `v1/analyze${query}`, { body: form({ photo }), signal });
}

/** Compare the largest faces of two photos. */
export function verify(photoA, photoB, signal) {
  return request("POST", "v1/verify", { body: form({ photo_a: photoA, photo_b: photoB }), signal });
}

/** Look at photos before they are enrolled: the faces in each, and likely mistakes. */
export function check(name, photos) {
  return request("POST", "v1/people/check", { body: personForm(name, photos) });
}

/** Enrol photos under a name, by the face of each that has this number; gives the report. */
export function enrol(name, photos, faces) {
  const body = personForm(name, photos);
  body.append("faces", faces.join(","));
  return request("POST", "v1/people", { body });
}

/**
 * A part of the people enrolled: `people`, each with `name`, `photos` (how many), `note` and
 * `thumbnail` (whether there is one); and `total`. At least `count` of them, as far as the service
 * gives so many.
 */
export function people(search, start, count = 0) {
  const query = new URLSearchParams();
  if (search !== "") query.set("search", search);
  if (start > 0) query.set("start", start);
  if (count > 1000) query.set("count", Math.min(count, 10_000));
  return request("GET", String(query) !== "" ? `v1/people?${query}` : "v1/people");
}

/** A person's photos: `id`, `source`, `quality`, `enrolled_at`, `has_crop` … */
export async function photosOf(name) {
  return (await request("GET", `${personAddress(name)}/photos`)).photos;
}

/** The face of a photo. */
export function crop(photo) {
  return request("GET", `v1/photos/${photo}/crop`, { expects: "blob" });
}

/** Remove a photo. */
export function removePhoto(photo) {
  return request("DELETE", `v1/photos/${photo}`);
}

/** Show a photo's face as the person's picture. */
export function setPicture(photo) {
  return request("POST", `v1/photos/${photo}/picture`);
}

/** Make a photo that of another person. */
export function movePhoto(photo, to) {
  return request("POST", `v1/photos/${photo}/move`, { json: { to } });
}

/** Make one person of two names. */
export function merge(name, into) {
  return request("POST", `${personAddress(name)}/merge`, { json: { into } });
}

/** Undo a change, by its number. */
export function undo(change) {
  return request("POST", `v1/undo?change=${change}`);
}

/**
 * People without a name: `people`, each with `id`, `seen`, `last_seen`, `expires_at` and `faces`; and
 * `total`. At least `count` of them, as far as the service gives so many.
 */
export function unknownPeople(start, count = 0) {
  const query = new URLSearchParams();
  if (start > 0) query.set("start", start);
  if (count > 100) query.set("count", Math.min(count, 1000));
  return request("GET", String(query) !== "" ? `v1/unknown?${query}` : "v1/unknown");
}

/** A face of somebody without a name. */
export function unknownCrop(face) {
  return request("GET", `v1/unknown/faces/${face}/crop`, { expects: "blob" });
}

/** Give somebody a name. */
export function nameUnknown(id, name) {
  return request("POST", `v1/unknown/${id}/name`, { json: { name } });
}

/** Make one person of two without a name. */
export function mergeUnknown(id, into) {
  return request("POST", `v1/unknown/${id}/merge`, { json: { into } });
}

/** Delete somebody without a name. */
export function dismissUnknown(id) {
  return request("DELETE", `v1/unknown/${id}`);
}

/** A person's thumbnail. */
export function thumbnail(name) {
  return request("GET", `${personAddress(name)}/thumbnail`, { expects: "blob" });
}

/** Give a person another name. */
export function rename(name, newName) {
  return request("PATCH", personAddress(name), { json: { name: newName } });
}

/** Give a person a threshold of the person's own; null takes it away. */
export function setThreshold(name, threshold) {
  return request("PATCH", personAddress(name), { json: { threshold } });
}

/** Delete a person. */
export function remove(name) {
  return request("DELETE", personAddress(name));
}

/** The service's cameras: `name`, `state`, `since`, `detail`, `people` who are there … each. */
export async function cameras(signal) {
  return (await request("GET", "v1/cameras", { signal })).cameras;
}

/** Who came and left before the cameras, after the event of this number. */
export async function cameraEvents(since, signal) {
  return (await request("GET", `v1/cameras/events?since=${since}`, { signal })).events;
}

/** What a camera shows now, with boxes and names, at most so many pixels wide. */
export function cameraFrame(name, width, signal) {
  return request("GET", `v1/cameras/${encodeURIComponent(name)}/frame.jpg?width=${width}`, { signal, expects: "blob" });
}

/** What stands behind the answers. */
export function settings() {
  return request("GET", "v1/settings");
}

/** Whether this tab holds a token. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

/** Forget the token. */
export function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
  document.dispatchEvent(new Event("tokenchange"));
}

function personAddress(name) {
  return `v1/people/${encodeURIComponent(name)}`;
}

function personForm(name, photos) {
  const body = new FormData();
  body.append("name", name);
  for (const photo of photos) body.append("photos", photo, photo.name);
  return body;
}

function form(fields) {
  const body = new FormData();
  for (const [name, photo] of Object.entries(fields)) {
    body.append(name, photo, photo.name ?? "photo.jpg");
  }
  return body;
}

/** Send a request; asks for a token, and sends it again, for as long as one is missing. */
async function request(method, address, { body, json, signal, expects = "json" } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN_KEY);
    const headers = {};
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(address, {
        method, headers, signal, cache: "no-store",
        body: json === undefined ? body : JSON.stringify(json),
      });
      if (response.status === 204) return null;
      // Awaited here: the connection may be lost in the middle of an answer, too.
      if (response.ok) return await (expects === "blob" ? response.blob() : response.json());
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const photos = body === undefined ? [] : [...body.values()].filter((value) => value instanceof File);
      const lost = await unreadable(photos);
      throw new ServiceError(lost.length > 0
        ? `Cannot be read any more: ${namesOf(lost)}. Was it moved, changed or deleted?`
        : "The service does not answer. Is it still running?", 0);
    }
    if (response.status !== 401) throw await errorOf(response);
    // Another request may have got a new token while this one was on its way.
    if (sessionStorage.getItem(TOKEN_KEY) === token && !(await askForToken(token !== null))) {
      throw new ServiceError("The service answers only those who hold its token.", 401);
    }
  }
}

async function errorOf(response) {
  let [detail, leftOut] = [`The service answered ${response.status} ${response.statusText}.`, []];
  try {
    const problem = await response.json();
    if (typeof problem.detail === "string" && problem.detail !== "") detail = sentence(problem.detail);
    else if (typeof problem.title === "string") detail = sentence(problem.title);
    leftOut = problem.left_out ?? [];
  } catch {
    // A proxy in between answers in its own way; the status has to do.
  }
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return new ServiceError(detail, response.status, seconds, leftOut);
}

function sentence(text) {
  const trimmed = text.trim();
  return trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?'")\]]$/u.test(trimmed) ? "" : ".");
}

/** One dialog, however many requests are waiting for it. */
function askForToken(hadOne) {
  asking ??= (async () => {
    const [input, reason] = [byId("token-input"), byId("token-reason")];
    reason.textContent = hadOne
      ? "The service does not take this token. Is it complete?"
      : "This service answers only those who hold its token.";
    for (;;) {
      input.value = "";
      const confirmed = await ask(byId("token-dialog"));
      const token = input.value.trim();
      input.value = "";
      if (!confirmed || token === "") return false;
      // What no browser sends and no service has; copied, it may even be invisible.
      if (/^[\x20-\x7e]+$/u.test(token)) {
        sessionStorage.setItem(TOKEN_KEY, token);
        document.dispatchEvent(new Event("tokenchange"));
        return true;
      }
      reason.textContent = "A token has plain letters, digits and signs alone. Was something else copied with it?";
    }
  })().finally(() => { asking = null; });
  return asking;
}
