/** Boxes that glide from one answer to the next instead of jumping. */

const GLIDE_MILLISECONDS = 120;
const LEAST_OVERLAP = 0.2;

/** The faces of the latest answer, on their way from where they were shown before. */
export class GlidingFaces {
  #faces = [];
  #begun = 0;

  /** Take a new answer. */
  set(faces, now) {
    const shown = this.at(now);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#faces = faces.map((face) => {
      const before = still ? undefined : nearest(face.bounding_box, shown);
      return { face, from: before ?? face.bounding_box };
    });
    this.#begun = now;
  }

  /** The faces as they are to be drawn at a time. */
  at(now) {
    const share = Math.min(1, (now - this.#begun) / GLIDE_MILLISECONDS);
    return this.#faces.map(({ face, from }) => ({
      ...face,
      bounding_box: between(from, face.bounding_box, share),
    }));
  }
}

function nearest(box, faces) {
  const boxes = faces.map((face) => face.bounding_box);
  const overlaps = boxes.map((each) => intersectionOverUnion(box, each));
  const best = Math.max(...overlaps, 0);
  return best >= LEAST_OVERLAP ? boxes[overlaps.indexOf(best)] : undefined;
}

function between(from, to, share) {
  const mix = (a, b) => a + (b - a) * share;
  return {
    x: mix(from.x, to.x),
    y: mix(from.y, to.y),
    width: mix(from.width, to.width),
    height: mix(from.height, to.height),
  };
}

/** How much two boxes share of what they cover, 0 to 1. */
export function intersectionOverUnion(a, b) {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (a.width * a.height + b.width * b.height - shared);
}
