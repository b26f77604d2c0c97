// The language of the page: which one it is, and its words put into place. The words themselves are in texts.js.
import { TEXTS } from "/page/texts.js";

const STORED = "yolov5-dynamic.language";
const listeners = [];
let current = remembered() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

/** The language chosen on an earlier visit; null where none was, or where the browser keeps nothing for this page. */
function remembered() {
  try {
    const stored = localStorage.getItem(STORED);
    return stored in TEXTS ? stored : null;
  } catch {
    return null; // storage is switched off: the browser's language decides
  }
}

/** The text of a key in the present language, its {placeholders} filled in. Throws where there is no such text. */
export function text(key, values = {}) {
  const template = TEXTS[current][key];
  if (template === undefined) throw new Error(`expected a text in texts.js, got the key ${key}`);
  return template.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Fills in every element below root that names its text (data-text) or its accessible name (data-label). */
export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
}

/** Calls back now and after each change of the language. */
export function onLanguage(callback) {
  listeners.push(callback);
  callback();
}

function choose(language) {
  current = language;
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // storage is switched off: the choice holds for this visit
  }
  for (const callback of listeners) callback();
}

/** Connects the buttons that carry data-language, and keeps the document in the present language. */
export function connectLanguage() {
  const buttons = [...document.querySelectorAll("[data-language]")];
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.language));
  onLanguage(() => {
    document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.language === current));
    translate();
  });
}
