/** Quality: what stands behind an answer, and how long one takes. */

import { matchTimes, settings } from "./api.js";
import { announce, byId, clearMessages, counted, element } from "./dom.js";
import { showFailure } from "./failures.js";

const SOURCES = {
  set: "Set when the service was started.",
  calibration: "Learnt from people of your own.",
  encoder: "The encoder's own.",
};

let reads = 0;

/** Prepare the view. */
export function start() {
  byId("quality-refresh").addEventListener("click", async () => {
    await enter();
    announce("Read again.");
  });
}

/** The view is shown. */
export async function enter() {
  const [tiles, messages] = [byId("quality-tiles"), byId("quality-messages")];
  tiles.setAttribute("aria-busy", "true");
  reads += 1;
  const own = reads;
  try {
    const known = await settings();
    // Answers can overtake each other: the last one asked for counts.
    if (own !== reads) return;
    tiles.replaceChildren(...tilesOf(known));
    clearMessages(messages);
  } catch (error) {
    if (own !== reads) return;
    tiles.replaceChildren();
    showFailure(messages, error, enter);
  } finally {
    if (own === reads) tiles.setAttribute("aria-busy", "false");
  }
}

/** The view is hidden. */
export function leave() {}

function tilesOf(known) {
  const { threshold, calibration, latency } = known;
  const matches = latency["POST /v1/match"];
  return [
    tile("Threshold", threshold.toFixed(3), `From this similarity on, a face is given a name. ${SOURCES[known.threshold_from]}`),
    calibrationTile(calibration),
    tile("Answers in the service", times(matches), latencyNote(matches)),
    tile("Answers in this tab", times(ownLatency()),
      matchTimes.length > 0
        ? `Of the last ${counted(matchTimes.length, "match", "matches")} from here, the way over the network included.`
        : "Nothing was matched in this tab yet."),
    tile("Enrolled", String(known.people), `${known.people === 1 ? "person" : "people"}, by ${counted(known.photos, "photo")}.`),
    ...(known.verification_threshold === threshold ? [] : [
      tile("Threshold of two photos", known.verification_threshold.toFixed(3),
        "From this similarity on, Verify says: the same person."),
    ]),
    tile("Encoder", known.encoder, "The network that turns a face into numbers.", "text"),
    tile("Detector", known.detector, "What finds the faces in a photo.", "text"),
  ];
}

function tile(title, value, note, kind = "number") {
  return element("article", { className: `tile ${kind}` },
    element("h2", { textContent: title }),
    element("p", { className: "tile-value", textContent: value }),
    element("p", { className: "hint", textContent: note }));
}

function calibrationTile(calibration) {
  if (calibration === null || calibration === undefined) {
    return tile("Calibration", "Not calibrated",
      "The threshold is the encoder's own. Calibrating on your own people adds probabilities and a threshold that grows with the gallery.", "text");
  }
  return tile("Calibration", `1 in ${Math.round(1 / calibration.false_match_rate).toLocaleString("en")}`,
    `So many searches for a stranger may name someone. Learnt from ${counted(calibration.photos, "photo")} of ${counted(calibration.people, "person", "people")}.`);
}

function times(latency) {
  return latency?.requests > 0 ? `${Math.round(latency.p50_milliseconds)} ms` : "–";
}

function latencyNote(latency) {
  if (!latency?.requests) return "Nothing was matched since the service began.";
  return `Half of the last ${counted(latency.requests, "match", "matches")} took less; 99 of 100 took less than ${Math.round(latency.p99_milliseconds)} ms.`;
}

function ownLatency() {
  const sorted = [...matchTimes].sort((a, b) => a - b);
  return { requests: sorted.length, p50_milliseconds: sorted[Math.floor(sorted.length / 2)] };
}
