/** Small helpers for the document. Text goes in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

// How the last question of each dialog ends, until it has.
const waiting = new Map();

// What fetches the picture of each frame that was not looked at yet: there may be thousands.
const unseen = new WeakMap();
const inSight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    inSight.unobserve(target);
    unseen.get(target)();
  }
}, { rootMargin: "200px" });

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {object} properties Set as properties where the element has them ("className",
 *   "textContent", "onclick"), as attributes otherwise ("aria-label").
 * @param {...(Node|string|null)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "dataset") Object.assign(made.dataset, value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** One of the icons of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and a text. */
export function iconButton(iconName, text, onclick, properties = {}) {
  const label = element("span", { textContent: text });
  return element("button", { type: "button", className: "button", onclick, ...properties },
    icon(iconName), label);
}

/** A person's name: set apart, so that one written from right to left disturbs no text around it. */
export function nameOf(name) {
  return element("bdi", { className: "name", textContent: name });
}

/** Change the text of a button that has an icon before it. */
export function setLabel(button, text) {
  button.querySelector("span").textContent = text;
}

/** Say something to those who listen rather than look. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/**
 * Show messages in a place kept for them, instead of those before.
 *
 * @param {Element} place
 * @param {"error"|"warning"|"info"} kind
 * @param {string} text
 * @param {?{label: string, act: function}} action What the reader can do about it.
 * @param {boolean} isAsked Whether the reader has asked for something, and waits for what is said.
 * @returns {Element} The message, to be removed once it is no longer true.
 */
export function showMessage(place, kind, text, action = null, isAsked = true) {
  const message = element(
    "div", { className: `message ${kind}`, role: kind === "error" ? "alert" : "status" },
    icon(kind === "info" ? "known" : "warning"), element("p", { textContent: text }),
  );
  if (action !== null) {
    message.append(element("button", {
      type: "button", className: "button small", textContent: action.label,
      onclick: () => { clearMessages(place); action.act(); },
    }));
  }
  const isNew = place.querySelector("p")?.textContent !== text;
  place.replaceChildren(message);
  // On a small screen it may stand below what is in sight. Said again and again, it is known.
  if (kind === "error" && isNew && isAsked) message.scrollIntoView({ block: "nearest" });
  return message;
}

/** Take the messages away. */
export function clearMessages(place) {
  place.replaceChildren();
}

/**
 * Open one of the dialogs of index.html and wait for its end.
 *
 * @returns {Promise<boolean>} Whether it was confirmed.
 */
export function ask(dialog) {
  // A browser tells of a close with its next frame. Who is quick has opened the dialog again by
  // then: the end of the question before must not be taken for an answer to this one.
  waiting.get(dialog)?.();
  return new Promise((resolve) => {
    const end = () => {
      waiting.delete(dialog);
      dialog.removeEventListener("close", onClose);
      resolve(dialog.returnValue === "confirm");
    };
    const onClose = () => { if (!dialog.open) end(); };
    waiting.set(dialog, end);
    const cancel = dialog.querySelector("[data-cancel]");
    cancel.onclick = () => callOff(dialog);
    dialog.returnValue = "";
    dialog.addEventListener("close", onClose);
    dialog.showModal();
  });
}

/** Close a dialog, if it is open, as its button to cancel does. */
export function callOff(dialog) {
  dialog.close("cancel");
}

/** "1 photo", "2 photos". */
export function counted(count, singular, plural = `${singular}s`) {
  return `${count} ${count === 1 ? singular : plural}`;
}

/** A share as people write it: "97 %", and never a certainty that nobody has. */
export function percent(share) {
  if (share > 0.99) return "over 99\u00a0%";
  if (share < 0.01) return "below 1\u00a0%";
  return `${Math.round(share * 100)}\u00a0%`;
}

/** The address of a picture in memory, given back when the picture leaves. */
export function showPicture(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  if (blob === null) image.removeAttribute("src");
  else image.src = URL.createObjectURL(blob);
}

/**
 * Show a picture in a frame once the frame is looked at; what is in the frame stays until then.
 *
 * @param {Element} frame
 * @param {string} alt
 * @param {function(): Promise<Blob>} fetchPicture A picture that is missing is left out.
 */
export function showWhenSeen(frame, alt, fetchPicture) {
  unseen.set(frame, async () => {
    // A missing picture keeps nobody from managing people.
    const blob = await fetchPicture().catch(() => null);
    // Meanwhile the list may have been drawn anew.
    if (blob === null || !frame.isConnected) return;
    const image = element("img", { alt });
    showPicture(image, blob);
    frame.replaceChildren(image);
  });
  inSight.observe(frame);
}
