import { ask, columns, measures } from "./api.js";
import { at, element, folded, guarded, number, terms } from "./dom.js";
import { flagForm } from "./flags.js";
import { Player } from "./player.js";
import { ALL, LIST, NO_CLIP, link, query, quoted, route } from "./route.js";

let player = null;

/** Show the clip of the address; `isCurrent` tells whether it is still the one that is wanted. */
export const showClip = guarded(async (isCurrent) => {
  const { clip: clipId, shard, place } = route();
  const [clip, known, compared, beside] = await Promise.all([
    ask("clip", { clip: clipId, shard }), columns(), measures(), neighbours(place),
  ]);
  const opened = await openPlayer(clip);
  if (!isCurrent()) return;
  closeClip();
  player = opened;
  const { row } = clip;
  document.title = `${row.clip_id} · vidal view`;
  const heading = element("h2", { tabIndex: -1 }, row.title || row.clip_id);
  at("clip").replaceChildren(
    element(
      "nav", { "aria-label": "Clips", className: "steps" },
      element("a", { href: link(NO_CLIP), id: "back" }, route().diff ? "Comparison" : "All clips"),
      step("previous", "Previous", beside.previous), step("next", "Next", beside.next),
    ),
    heading, outcome(row), player ? player.element : image(clip.thumbnail),
    row.caption ? element("p", { className: "caption" }, row.caption) : "",
    element("div", { className: "columns" }, element("div", {}, texts(clip), similar(row, compared)), flagForm(clip)),
    folded("Numbers and other columns", true, values(row, known)),
    folded(`Members (${clip.members.length})`, false, members(clip.members)),
  );
  heading.focus();
});

export function closeClip() {
  player?.pause();
  player = null;
}

/** The player of the open clip, or null. */
export function currentPlayer() {
  return player;
}

async function openPlayer(clip) {
  const address = (kind) => clip.members.find((member) => member.type.startsWith(kind))?.url;
  const [video, audio] = [address("video/"), address("audio/")];
  const [layers, sound] = await Promise.all([
    Promise.all(clip.previews.map((preview) => ask(preview))), audio ? ask(clip.peaks) : null,
  ]);
  const lastFrame = Math.max(0, ...layers.flatMap((layer) => layer.frames.map((frame) => frame.time_s ?? 0)));
  if (!video && !audio && !layers.some((layer) => layer.frames.length)) return null;
  // Without a stored length a clip is as long as its last frame tells, at least a second.
  const duration = clip.row.duration_s || Math.max(lastFrame, 1);
  return new Player({ duration, video, audio, layers, peaks: sound?.peaks });
}

async function neighbours(place) {
  if (place === undefined) return {};
  const here = Number(place);
  const first = Math.max(0, here - 1);
  const page = await ask("clips", { ...query(), offset: first, limit: here - first + 2 });
  const address = (index) => {
    const row = page.rows[index - first];
    return row && link({ clip: row.clip_id, shard: row.shard, place: index });
  };
  return { previous: here > 0 && address(here - 1), next: address(here + 1) };
}

function step(id, text, address) {
  return address ? element("a", { id, href: address }, text) : element("span", { className: "soft" }, text);
}

function image(address) {
  const made = element("img", { src: address, alt: "middle frame", className: "only" });
  made.onerror = () => made.remove();
  return made;
}

/** Return what became of a clip, in words. */
export function outcomeText({ status, stage, reason, detail }) {
  const why = [stage, reason !== stage && reason, detail && `(${detail})`].filter(Boolean).join(" ");
  return status === "kept" || !why ? status : `${status}: ${why}`;
}

function outcome(row) {
  const parts = [row.clip_id, row.duration_s && `${number(row.duration_s)} s`, row.width && `${row.width}×${row.height}`];
  return element(
    "p", { className: "soft" }, parts.filter(Boolean).join(" · "), " · ",
    element("span", { className: row.status }, outcomeText(row)),
  );
}

function texts(clip) {
  const of = { caption: clip.row.caption_source };
  return terms(clip.texts.map(({ column, text, model }) => {
    const source = [of[column], model].filter(Boolean).join(", ");
    // Captions of frames without one are empty.
    const value = element("span", {}, [text].flat().filter(Boolean).join("\n"));
    if (source) value.append(element("span", { className: "soft" }, ` (${source})`));
    return [column, value];
  }));
}

/** Return links to the near-duplicates of a clip, and to what is like it. */
function similar(row, compared) {
  const links = element("p");
  if (compared.length) {
    const address = link({ ...LIST, ...ALL, where: "", like: row.clip_id });
    const more = element("a", { href: address, id: "like", "aria-keyshortcuts": "~" }, "More like this");
    links.append(more, ` (${by(compared)}) `);
  }
  if (row.duplicate_of) {
    const original = link({ ...NO_CLIP, clip: row.duplicate_of });
    links.append("Repeats ", element("a", { href: original }, row.duplicate_of), `, by ${row.duplicate_kind}. `);
  }
  if (row.cluster) addCluster(links, row.cluster);
  return links;
}

/** What clips are compared by, in words. */
function by(compared) {
  return (compared.find(({ name }) => name === route().by) ?? compared[0]).text;
}

/** Add a link to the clips of a near-duplicate cluster, if there are several. */
const addCluster = guarded(async (links, cluster) => {
  const where = `cluster = ${quoted(cluster)}`;
  const { clips } = await ask("clips", { where, limit: 0 });
  const address = link({ ...LIST, ...ALL, where });
  if (clips > 1) links.append(element("a", { href: address, id: "cluster" }, `${number(clips)} near-duplicates, this clip included`));
});

function values(row, known) {
  const groups = new Map();
  for (const { name, group, doc } of known) {
    const value = row[name];
    if (value === undefined || value === null || value === "" || value.length === 0) continue;
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push([name, shown(value), doc]);
  }
  const sections = [...groups].map(([group, pairs]) => element("section", {}, element("h3", {}, group), terms(pairs)));
  return element("div", { className: "groups" }, ...sections);
}

function shown(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function members(list) {
  const heads = ["member", "tar", "offset", "bytes", "SHA-256"];
  const rows = list.map((member) => {
    const download = element("a", { href: member.url, download: member.name }, member.name);
    const cells = [download, member.tar, number(member.offset), number(member.size), member.sha256];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  });
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { className: "wide" }, table);
}
