// The settings beside the picture: models, thresholds, the classes to show. They change the session, which does the rest.
import { colour } from "/page/boxes.js";
import { text } from "/page/language.js";

const at = (id) => document.getElementById(id);

/** Connects the settings to a session, once. */
export function connectControls(session) {
  slider("conf", (confidence) => {
    session.confidence = confidence;
    session.changed(); // no request: every box above the floor is here already
  });
  slider("iou", (iou) => session.update({ iou }));
  at("attention").addEventListener("change", ({ target }) => session.update({ attention: target.checked }));
  for (const id of ["model-a", "model-b"]) {
    at(id).addEventListener("change", () => {
      const chosen = [at("model-a").value, at("model-b").value].filter(Boolean);
      session.update({ chosen: [...new Set(chosen)] });
    });
  }
  at("all-classes").addEventListener("click", () => {
    session.hidden.clear();
    session.changed();
  });
}

function slider(id, changed) {
  const input = at(id);
  const show = () => (at(`${id}-value`).value = Number(input.value).toFixed(2));
  input.addEventListener("input", () => {
    show();
    changed(Number(input.value));
  });
  show();
}

/** Puts the service's models into both selects; the second offers to compare with none. */
export function listModelChoices(session) {
  const options = (chosen) => session.models.map(({ id }) => new Option(id, id, false, id === chosen));
  const [first, second = ""] = session.chosen;
  at("model-a").replaceChildren(...options(first));
  at("model-b").replaceChildren(new Option(text("none"), "", false, second === ""), ...options(second));
}

/** Shows what there is to set now. counts: see boxes.countByClass, hidden classes too. */
export function showControls(session, counts) {
  const dynamic = session.chosen.some((id) => session.model(id).dynamic_layers.length > 0);
  at("attention-row").hidden = !dynamic;
  at("no-classes").hidden = counts.size > 0;
  at("all-classes").hidden = session.hidden.size === 0;
  showChips(session, counts);
}

/** A toggle a class. Buttons that stay are kept, so that the keyboard's focus survives a redraw. */
function showChips(session, counts) {
  const chips = at("chips");
  const present = new Map([...chips.children].map((chip) => [chip.dataset.name, chip]));
  const wanted = [...counts].map(([name, { index, counts: found }]) => {
    const chip = present.get(name) ?? newChip(session, name);
    const shown = !session.hidden.has(name);
    chip.style.setProperty("--colour", colour(index));
    chip.setAttribute("aria-pressed", String(shown));
    chip.querySelector(".number").textContent = found.join(" | ");
    return chip;
  });
  for (const [name, chip] of present) if (!counts.has(name)) chip.remove();
  wanted.forEach((chip, place) => {
    if (chips.children[place] !== chip) chips.insertBefore(chip, chips.children[place] ?? null);
  });
}

function newChip(session, name) {
  const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip" });
  chip.dataset.name = name;
  const number = Object.assign(document.createElement("span"), { className: "number" });
  chip.append(name, " ", number);
  chip.addEventListener("click", () => {
    if (!session.hidden.delete(name)) session.hidden.add(name);
    session.changed();
  });
  return chip;
}
