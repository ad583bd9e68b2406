import { closeClip, showClip } from "./clip.js";
import { showClips } from "./clips.js";
import { markMove, showDiff } from "./diff.js";
import { at, guarded, say } from "./dom.js";
import { markFunnel, showFunnel } from "./funnel.js";
import { listenToKeys } from "./keyboard.js";
import { listenToMap, markBox, showMap } from "./map.js";
import { LIST, go, route } from "./route.js";
import { count, showThresholds } from "./thresholds.js";

const WIDE_PX = 900;
let turn = 0;
let opened = null;

/** Show what the address says; what comes of an earlier one is dropped. */
async function show() {
  const mine = ++turn;
  const isCurrent = () => mine === turn;
  const { clip, diff } = route();
  say("");
  at("list").hidden = Boolean(clip || diff);
  at("diff").hidden = Boolean(clip) || !diff;
  at("clip").hidden = !clip;
  if (clip) {
    opened = clip;
    return showClip(isCurrent);
  }
  closeClip();
  at("clip").replaceChildren();
  document.title = "vidal view";
  if (diff) return showDiff(isCurrent);
  markFunnel();
  // First what is looked at: of a million clips each further answer keeps all cores busy for a while.
  await showClips(isCurrent);
  await Promise.all([count(), markMove(), markBox(), showMap(isCurrent)]);
  if (opened && isCurrent()) focusOn(opened);
  opened = null;
}

/** Put the focus on the clip that was open, to go on from there. */
function focusOn(clipId) {
  const links = [...at("clips").querySelectorAll("a.clip")];
  links.find((one) => new URLSearchParams(one.hash.slice(1)).get("clip") === clipId)?.focus();
}

function search(event) {
  event.preventDefault();
  const order = at("descending").checked ? "desc" : "";
  const [text, by] = [at("search").value.trim(), at("search-by").value];
  const words = by && text ? { words: text, by, search: "", like: "", box: "" } : { words: "", search: text };
  go({ ...LIST, where: at("where").value, sort: at("sort").value, order, ...words, offset: "" });
}

at("search-form").onsubmit = at("query").onsubmit = search;
at("sort").onchange = at("descending").onchange = search;
for (const button of at("layouts").children) button.onclick = () => go({ layout: button.value });
for (const button of document.querySelectorAll("button.copy")) {
  button.onclick = guarded(async () => {
    await navigator.clipboard.writeText(at(button.value).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
for (const section of document.querySelectorAll("aside details:not(#groups)")) section.open = innerWidth >= WIDE_PX;
addEventListener("hashchange", show);
listenToKeys();
listenToMap();
await show();
showFunnel();
showThresholds();
