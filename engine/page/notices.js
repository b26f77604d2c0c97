// Sentences about what could not be done, above the picture until they are dismissed.
import { text } from "/page/language.js";

/** Shows the text of a key from texts.js. action: {label, run}, a second button. */
export function notice(key, values = {}, action = null) {
  const place = document.getElementById("notices");
  const made = Object.assign(document.createElement("p"), { className: "notice" });
  const sentence = document.createElement("span");
  sentence.textContent = text(key, values);
  made.append(sentence);
  if (action) made.append(button(action.label, () => (made.remove(), action.run())));
  const dismiss = button("×", () => made.remove());
  dismiss.setAttribute("aria-label", text("dismiss"));
  dismiss.className = "quiet";
  made.append(dismiss);
  place.append(made);
}

export function clearNotices() {
  document.getElementById("notices").replaceChildren();
}

function button(label, run) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: label });
  made.addEventListener("click", run);
  return made;
}
