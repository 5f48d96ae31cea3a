/** The page: which view is shown, and what is common to all of them. */

import { forgetToken, hasToken } from "./api.js";
import { announce, byId } from "./dom.js";
import * as cameras from "./cameras.js";
import * as identify from "./identify.js";
import * as people from "./people.js";
import * as quality from "./quality.js";
import * as unknown from "./unknown.js";
import * as verify from "./verify.js";

// Each has `start()`, called once, and `enter()` and `leave()`, called when it is shown and hidden.
const VIEWS = { identify, people, unknown, cameras, verify, quality };

let shown = null;

function route() {
  const asked = location.hash.slice(1);
  // The link that skips to the content is no view.
  if (asked === "main" && shown !== null) return;
  show(Object.hasOwn(VIEWS, asked) ? asked : "identify");
}

function show(name) {
  if (name === shown) return;
  const first = shown === null;
  if (!first) VIEWS[shown].leave();
  shown = name;
  for (const each of Object.keys(VIEWS)) byId(`${each}-view`).hidden = each !== name;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = byId(`${name}-heading`);
  document.title = `${heading.textContent} · face_encode`;
  announce("");
  window.scrollTo(0, 0);
  // Where the page was just opened, the focus belongs to the browser.
  if (!first) heading.focus({ preventScroll: true });
  VIEWS[name].enter();
}

function showTokenButton() {
  byId("forget-token").hidden = !hasToken();
}

for (const view of Object.values(VIEWS)) view.start();
byId("forget-token").addEventListener("click", () => {
  forgetToken();
  // What the token let this page see goes with it.
  location.reload();
});
document.addEventListener("tokenchange", showTokenButton);
showTokenButton();
// A photo dropped beside its place would otherwise take the page's.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault());
}
window.addEventListener("hashchange", route);
window.addEventListener("pagehide", () => VIEWS[shown].leave());
// The browser may keep the page as it was left, for the button that leads back.
window.addEventListener("pageshow", (event) => { if (event.persisted) VIEWS[shown].enter(); });
route();
