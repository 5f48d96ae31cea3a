/** What else a face shows, where the service tells it: age, gender, expression, life. In honest words. */

import { percent } from "./dom.js";
import { intersectionOverUnion } from "./gliding.js";

// From this share on, the boxes of two answers are of one face.
const LEAST_OVERLAP = 0.5;
// A likeliest expression below this is no more likely than all others together.
const LEAST_PROBABILITY = 0.5;

const ON_ATTRIBUTES =
  "Age, gender and expression are guesses from looks, and often wrong: nine in ten people who look so are between "
  + "the ages in brackets. Nothing about a person may be decided by them; to infer emotions at work or in schools is "
  + "forbidden in the European Union.";
const ON_LIVENESS =
  "Whether a face is live is judged by one look at one picture: that stops many photos and screens held up, not all.";

/** Give each face what was told of the one in the same place. */
export function joinAttributes(faces, analyzed) {
  for (const face of faces) {
    face.attributes = analyzed.find(
      (each) => intersectionOverUnion(each.bounding_box, face.bounding_box) >= LEAST_OVERLAP,
    );
  }
}

/** How a face looks: "about 31 (20 to 48) · woman, 97 % · happy, 93 %". */
export function attributesInWords({
  age, age_interval: ages, gender, gender_probabilities: genders, expression, expression_probabilities: expressions,
  quality_reason: reason,
}) {
  if (age === null) return `age, gender and expression cannot be told: ${reason}`;
  const years = `about ${Math.round(age)} (${Math.floor(ages[0])} to ${Math.ceil(ages[1])})`;
  const shownGender = gender === "uncertain" ? "gender uncertain" : `${gender}, ${percent(genders[gender])}`;
  const share = expressions[expression];
  const shownExpression = share < LEAST_PROBABILITY ? "expression uncertain" : `${expression}, ${percent(share)}`;
  return [years, shownGender, shownExpression].join(" · ");
}

/** What must be read beside what is told of these faces; empty where nothing is. */
export function cautionOn(faces) {
  const cautions = [];
  if (faces.some((face) => face.attributes !== undefined)) cautions.push(ON_ATTRIBUTES);
  if (faces.some((face) => face.is_live !== undefined)) cautions.push(ON_LIVENESS);
  return cautions.join(" ");
}
