/** The dialog that asks for a name, or another text: to rename somebody, to move a photo … */

import { ServiceError } from "./api.js";
import { ask, byId, element } from "./dom.js";
import { showFailure } from "./failures.js";

/**
 * Ask for a name, and send it.
 *
 * @param {object} wish
 * @param {Array<Node|string>} wish.title
 * @param {string} wish.label Of the field.
 * @param {string} wish.verb On the button.
 * @param {string} wish.value The name to begin with.
 * @param {string[]} wish.names Names to choose from.
 * @param {boolean} wish.mayBeEmpty Whether nothing may be given, too.
 * @param {function(string): Promise<?object>} wish.send Asks the service; null where that was called off.
 * @param {function(object): Promise} wish.onDone Called with its answer.
 * @param {string} wish.messages Where a failure is shown that comes after the dialog was closed.
 */
export async function askName({
  title, label, verb, value = "", names = [], mayBeEmpty = false, send, onDone, messages = "people-messages",
}) {
  const [dialog, input, problem] = [byId("name-dialog"), byId("name-input"), byId("name-error")];
  byId("name-heading").replaceChildren(...title);
  byId("name-label").textContent = label;
  byId("name-confirm").textContent = verb;
  byId("name-choices").replaceChildren(...names.map((name) => element("option", { value: name })));
  problem.hidden = true;
  input.value = value;
  let [done, isOpen, isSending] = [null, true, false];
  // The dialog stays open until the service has agreed, so that a name it refuses can be mended.
  byId("name-form").onsubmit = async (event) => {
    event.preventDefault();
    if (isSending) return;
    const wanted = input.value.trim();
    isSending = true;
    try {
      if (wanted === "" && !mayBeEmpty) throw new ServiceError("A name is needed.", 0);
      const answer = await send(wanted);
      // Called off too late, it may be open for somebody else by now.
      if (!isOpen) {
        if (answer !== null) await onDone(answer);
        return;
      }
      done = answer;
      dialog.close("confirm");
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      if (!isOpen) {
        showFailure(byId(messages), error);
        return;
      }
      problem.textContent = error.message;
      problem.hidden = false;
      input.focus();
    } finally {
      isSending = false;
    }
  };
  const answer = ask(dialog);
  input.select();
  await answer;
  isOpen = false;
  if (done !== null) await onDone(done);
}
