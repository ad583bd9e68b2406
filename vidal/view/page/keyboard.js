import { currentPlayer } from "./clip.js";
import { at } from "./dom.js";
import { LIST, NO_CLIP, go, route } from "./route.js";

const SEEK_S = 1;

/** Listen to the keys that `?` lists. */
export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
    const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (isTyping) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const keys = route().clip ? CLIP_KEYS : route().diff ? DIFF_KEYS : LIST_KEYS;
    const act = keys[event.key] ?? ALWAYS[event.key];
    if (!act || isOwnKey(event)) return;
    event.preventDefault();
    act();
  });
  at("help-button").onclick = () => at("help").showModal();
}

/** Whether what has the focus does something else by this key itself. */
function isOwnKey({ key, target }) {
  if (key === " ") return target.matches("button, summary, input");
  return target.matches("input[type=range]") && key.startsWith("Arrow");
}

const ALWAYS = { "?": () => at("help").showModal(), "/": () => at("search").select() };

const LIST_KEYS = {
  j: () => move(1), k: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
  ArrowDown: () => move(perRow()), ArrowUp: () => move(-perRow()),
  n: () => at("later").click(), p: () => at("earlier").click(),
};

const DIFF_KEYS = {
  n: () => at("texts-later")?.click(), p: () => at("texts-earlier")?.click(), Escape: () => go(LIST),
};

const CLIP_KEYS = {
  j: () => at("next")?.click(), k: () => at("previous")?.click(), Escape: () => go(NO_CLIP),
  ArrowRight: () => seek(SEEK_S), ArrowLeft: () => seek(-SEEK_S), " ": () => currentPlayer()?.toggle(),
  f: () => flagButtons()[0]?.focus(), "~": () => at("like")?.click(),
  ...Object.fromEntries([1, 2, 3, 4].map((digit) => [digit, () => flagButtons()[digit - 1]?.click()])),
};

const clips = () => [...at("clips").querySelectorAll("a.clip")];
const flagButtons = () => document.querySelectorAll(".flags button");

function move(by) {
  const all = clips();
  const here = all.indexOf(document.activeElement);
  const next = here < 0 ? 0 : Math.min(Math.max(here + by, 0), all.length - 1);
  all[next]?.focus();
}

/** How many clips lie beside each other. */
function perRow() {
  const tops = clips().map((clip) => clip.getBoundingClientRect().top);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
}

function seek(by) {
  const player = currentPlayer();
  player?.seek(player.time + by);
}
