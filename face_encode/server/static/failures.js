/** Failures of the service, shown where they matter, with what can be done about them. */

import { ServiceError, forgetToken, hasToken } from "./api.js";
import { showMessage } from "./dom.js";

/**
 * Show a failure.
 *
 * @param {Element} place Kept for messages.
 * @param {Error} error Thrown again where it is none of the service's.
 * @param {?function()} retry Does what failed once more; null where that is another button's.
 * @param {boolean} isAsked As for `showMessage`.
 * @returns {Element} The message.
 */
export function showFailure(place, error, retry = null, isAsked = true) {
  if (!(error instanceof ServiceError)) throw error;
  let action = retry === null ? null : { label: "Try again", act: retry };
  if (error.status === 403 && hasToken()) {
    action = { label: "Use another token", act: () => { forgetToken(); retry?.(); } };
  }
  return showMessage(place, "error", error.message, action, isAsked);
}
