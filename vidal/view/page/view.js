"use strict";

// Every text of a dataset is a stranger's: it goes into the page by textContent alone.
const PAGE = 50;
const at = (id) => document.getElementById(id);
let offset = 0;

function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

async function ask(answer, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return read(await fetch(answer.includes("?") ? answer : `api/${answer}?${query}`));
}

async function read(response) {
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

function guarded(work) {
  return async (...given) => {
    try {
      at("message").textContent = "";
      await work(...given);
    } catch (error) {
      at("message").textContent = error.message;
    }
  };
}

function tableRow(...cells) {
  const row = element("tr");
  row.append(...cells.map((cell) => element("td", cell)));
  return row;
}

const query = () => ({ where: at("where").value, search: at("search").value });

const showClips = guarded(async () => {
  const order = at("descending").checked ? "desc" : "asc";
  const page = await ask("clips", { ...query(), sort: at("sort").value, order, offset, limit: PAGE });
  at("clips").replaceChildren(...page.rows.map(clipRow));
  at("place").textContent = page.clips ? `${offset + 1} to ${offset + page.rows.length} of ${page.clips}` : "no clip";
  at("earlier").disabled = offset === 0;
  at("later").disabled = offset + PAGE >= page.clips;
});

function clipRow(clip) {
  const row = element("div", undefined, { className: "row", onclick: () => showClip(clip) });
  const texts = element("div");
  const outcome = clip.status === "kept" ? "kept" : `${clip.status}: ${clip.stage}, ${clip.reason} (${clip.detail})`;
  texts.append(
    element("div", clip.caption || clip.title || clip.clip_id),
    element("div", [clip.clip_id, outcome, ...Object.keys(clip.flags)].join(" · "), { className: "soft" }),
  );
  row.append(element("img", undefined, { src: clip.thumbnail, alt: "", loading: "lazy" }), texts);
  return row;
}

const showClip = guarded(async (listed) => {
  const clip = await ask("clip", { clip: listed.clip_id, shard: listed.shard });
  const parts = [element("h2", clip.row.clip_id), flagButtons(clip)];
  const media = (kind) => clip.members.find((member) => member.type.startsWith(kind));
  if (media("video/")) parts.push(element("video", undefined, { src: media("video/").url, controls: true }));
  if (media("audio/")) parts.push(element("audio", undefined, { src: media("audio/").url, controls: true }));
  for (const address of clip.previews) parts.push(await strip(address));
  const texts = element("table");
  texts.append(...clip.texts.map((text) => tableRow(text.column, [text.text].flat().join(" | "), text.model)));
  const columns = element("table");
  const filled = Object.entries(clip.row).filter(([, value]) => value !== null && value !== "");
  columns.append(...filled.map(([name, value]) => tableRow(name, typeof value === "object" ? JSON.stringify(value) : value)));
  const members = element("table");
  members.append(...clip.members.map((m) => tableRow(m.name, m.tar, `${m.offset}+${m.size}`, m.sha256)));
  for (const [title, table] of [["Texts", texts], ["Columns", columns], ["Members", members]]) {
    const folded = element("details", undefined, { open: table === texts });
    folded.append(element("summary", title), table);
    parts.push(folded);
  }
  at("clip").replaceChildren(...parts);
});

async function strip(address) {
  const shown = await ask(address);
  const made = element("div", undefined, { className: "strip" });
  if (!shown.frames.length) return made;
  made.append(element("div", [shown.layer, shown.is_synthetic && "synthetic", shown.note].filter(Boolean).join(" · "), { className: "soft" }));
  made.append(...shown.frames.map((frame) => element("img", undefined, { src: frame.url, alt: "", title: `${frame.time_s} s` })));
  return made;
}

function flagButtons(clip) {
  const made = element("div");
  for (const flag of ["wrong_caption", "misaligned", "unsafe", "remove"]) {
    const button = element("button", (flag in clip.flags ? "✓ " : "") + flag);
    button.onclick = guarded(async () => {
      const sent = { clip: clip.row.clip_id, flag, is_set: !(flag in clip.flags) };
      const headers = { "Content-Type": "application/json" };
      await read(await fetch("api/flags", { method: "POST", headers, body: JSON.stringify(sent) }));
      await showClip(clip.row);
      await showClips();
    });
    made.append(button);
  }
  return made;
}

let edges = [];
const showColumn = guarded(async () => {
  edges = (await ask("histogram", { column: at("column").value })).edges;
  await showLimit();
});

const showLimit = guarded(async () => {
  if (!edges.length) {
    at("kept").textContent = "no clip has this number";
    return;
  }
  const low = edges[0], high = edges[edges.length - 1];
  const limit = Number((low + (high - low) * at("limit").value / 1000).toPrecision(4));
  const bound = `${at("column").value}${at("sign").value}${limit}`;
  const [count, recipe] = await Promise.all([ask("count", { ...query(), bound }), ask("recipe", { bound })]);
  at("kept").textContent = `${bound} keeps ${count.clips} of ${count.kept}`;
  at("command").textContent = [`--where "${recipe.where}"`, recipe.command, recipe.stages].filter(Boolean).join("\n");
});

guarded(async () => {
  at("query").onsubmit = (event) => { event.preventDefault(); offset = 0; showClips(); };
  at("earlier").onclick = () => { offset = Math.max(0, offset - PAGE); showClips(); };
  at("later").onclick = () => { offset += PAGE; showClips(); };
  at("column").onchange = showColumn;
  at("sign").onchange = at("limit").oninput = showLimit;
  showClips();
  const [summary, columns] = await Promise.all([ask("summary"), ask("columns")]);
  at("name").textContent = summary.address;
  at("totals").textContent = ["candidates", "kept", "rejected", "failed", "open"].map((name) => `${summary[name]} ${name}`).join(", ");
  at("funnel").append(...summary.dropped.map((line) => tableRow(line.stage, line.status, line.reason, line.clips)));
  at("sort").append(...columns.filter((c) => c.is_sortable).map((c) => element("option", c.name)));
  at("column").append(...columns.filter((c) => c.is_numeric).map((c) => element("option", c.name)));
  at("column").value = "duration_s";
  await showColumn();
})();
