import { ask, columns, measures } from "./api.js";
import { outcomeText } from "./clip.js";
import { at, element, guarded, number } from "./dom.js";
import { go, link, query, route } from "./route.js";
import { boundColumns } from "./thresholds.js";

const PAGE = 48;
const SHOWN_COLUMNS = ["clip_id", "title", "caption", "duration_s"];
const TEXTS = ["title", "caption"];

/** Show the page of clips of the address; `isCurrent` tells whether it is still the one that is wanted. */
export const showClips = guarded(async (isCurrent) => {
  const { offset: from = "0", layout = "grid", where = "", sort = "", order = "", like = "" } = route();
  const { search = "", words = "" } = route();
  const offset = Number(from);
  [at("where").value, at("search").value, at("descending").checked] = [where, words || search, order === "desc"];
  for (const button of at("layouts").children) button.setAttribute("aria-pressed", button.value === layout);
  const more = [...boundColumns(), sort, (like || words) && "likeness"].filter(Boolean);
  markLike(like, words);
  const page = await ask("clips", { ...query(), offset, limit: PAGE, column: more }).finally(() => offer(isCurrent));
  if (!isCurrent()) return;
  const show = layout === "table" ? table : grid;
  at("clips").replaceChildren(page.clips ? show(page.rows, offset, more) : element("p", {}, "No clip meets this."));
  const last = offset + page.rows.length;
  at("place").textContent = page.clips ? `${number(offset + 1)}–${number(last)} of ${number(page.clips)} clips` : "";
  for (const [id, start, isThere] of [["earlier", offset - PAGE, offset > 0], ["later", last, last < page.clips]]) {
    at(id).disabled = !isThere;
    at(id).onclick = () => go({ offset: Math.max(0, start) || "" });
  }
});

/** Offer what clips can be sorted and searched by, after the list, as looking for it keeps the server busy. */
const offer = guarded(async (isCurrent) => {
  await Promise.all([sortable(), searchable()]);
  if (!isCurrent()) return;
  const { search = "", words = "", by, sort = "" } = route();
  if (words || search) at("search-by").value = words ? by : "";
  at("sort").value = sort;
});

/** Say above the list which clip or words the clips are like, by what, and offer to compare by something else. */
const markLike = guarded(async (like, words) => {
  const { by } = route();
  at("alike").hidden = !like && !words;
  if (!like && !words) return;
  const compared = (await measures()).filter((one) => like || one.takes_words);
  const measure = compared.find(({ name }) => name === by) ?? compared[0];
  const options = compared.map(({ name, text }) => element("option", { value: name }, text));
  const choice = element("select", { "aria-label": "compared by" }, ...options);
  choice.value = measure?.name;
  // A rectangle of one map means nothing on another.
  choice.onchange = () => go({ by: choice.value, box: "", offset: "" });
  const all = element("button", { type: "button", onclick: () => go({ like: "", words: "", offset: "" }) }, "All clips");
  const example = like ? element("a", { href: link({ clip: like, shard: "", place: "" }) }, like) : element("q", {}, words);
  at("alike").replaceChildren("Like ", example, ", nearest first, by ", choice, ` (${measure?.unit ?? ""}) `, all);
});

async function sortable() {
  const names = (await columns()).filter((column) => column.is_sortable).map((column) => column.name);
  if (at("sort").options.length > 1) return;
  at("sort").append(...names.map((name) => element("option", {}, name)));
}

/** Offer to search by embeddings, where there are some that words can be compared with; else texts are searched. */
async function searchable() {
  const able = (await measures()).filter((one) => one.takes_words);
  if (at("search-by").options.length) return;
  at("search-by").hidden = !able.length;
  at("search-by").append(...able.map(({ name, text }) => element("option", { value: name }, `by ${text}`)));
  at("search-by").append(element("option", { value: "" }, "in titles, captions, transcripts"));
}

function opening(clip, place) {
  return link({ clip: clip.clip_id, shard: clip.shard, place });
}

function thumbnail(clip) {
  const image = element("img", { src: clip.thumbnail, alt: "", loading: "lazy" });
  image.onerror = () => image.replaceWith(element("span", { className: "no-image soft" }, "no image"));
  return image;
}

function badges(clip) {
  return Object.keys(clip.flags).map((flag) => element("span", { className: "badge" }, flag));
}

function outcome(clip) {
  return element("span", { className: clip.status }, outcomeText(clip));
}

function grid(rows, offset, more) {
  const cards = rows.map((clip, k) => {
    const figures = more.filter((name) => typeof clip[name] === "number").map((name) => `${name} ${number(clip[name])}`);
    return element(
      "a", { className: "card clip", href: opening(clip, offset + k) }, thumbnail(clip),
      element("strong", {}, clip.caption || clip.title || clip.clip_id),
      element("span", { className: "soft" }, [clip.clip_id, ...figures].join(" · ")), outcome(clip), ...badges(clip),
    );
  });
  return element("div", { className: "grid" }, ...cards);
}

function table(rows, offset, more) {
  const names = [...SHOWN_COLUMNS, ...more.filter((name) => !SHOWN_COLUMNS.includes(name))];
  const head = element("tr", {}, element("td"), ...names.map(heading), element("th", { scope: "col" }, "outcome"));
  const lines = rows.map((clip, k) => {
    const opener = element("a", { className: "clip", href: opening(clip, offset + k) }, clip.clip_id);
    const cells = names.slice(1).map((name) => element("td", { className: TEXTS.includes(name) ? "text" : "" }, shown(clip[name])));
    const start = [element("td", {}, thumbnail(clip)), element("td", {}, opener, ...badges(clip))];
    return element("tr", {}, ...start, ...cells, element("td", { className: "text" }, outcome(clip)));
  });
  return element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
}

/** Return the heading of a column, which sorts by it, and the other way if pressed again. */
function heading(name) {
  const { sort, order } = route();
  const isSorted = sort === name;
  const next = { sort: name, order: isSorted && order !== "desc" ? "desc" : "", offset: "" };
  const button = element("button", { type: "button", onclick: () => go(next) }, name);
  const direction = order === "desc" ? "descending" : "ascending";
  return element("th", { scope: "col", "aria-sort": isSorted ? direction : "none" }, button);
}

function shown(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" ? number(value) : String(value);
}
