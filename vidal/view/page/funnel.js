import { ask } from "./api.js";
import { at, element, guarded, number } from "./dom.js";
import { LIST, go, link, quoted, route } from "./route.js";

/** Show name, counts and the funnel, whose bars list their clips. */
export const showFunnel = guarded(async () => {
  const summary = await ask("summary");
  at("name").textContent = summary.name;
  const revision = summary.revision ? `revision ${summary.revision}` : "";
  at("about").textContent = [summary.address, revision, summary.layers.join(", ")].filter(Boolean).join(" · ");
  const most = Math.max(1, summary.candidates);
  const lines = [
    { text: "candidates", clips: summary.candidates, where: "", status: "candidates" },
    ...summary.dropped.map(droppedLine),
    { text: "kept", clips: summary.kept, where: "status = 'kept'", status: "kept" },
  ];
  at("funnel").replaceChildren(...lines.map((line) => bar(line, most)));
  at("groups").ontoggle = showGroups;
  if (summary.open) at("funnel").append(element("p", { className: "soft" }, `${number(summary.open)} not built yet`));
  at("compared").hidden = !summary.against;
  at("compared").textContent = summary.against ? `Compared with ${summary.against}` : "";
  at("compared").href = link({ ...LIST, diff: 1 });
  markFunnel();
});

/** Show the largest near-duplicate clusters, whose bars list their clips. */
const showGroups = guarded(async () => {
  // Counted when they are looked at, so that the first page of a million rows does not wait for it.
  if (!at("groups").open) return;
  const { groups, rows } = await ask("groups");
  at("groups-about").textContent = groups ? `${number(groups)} clusters of several clips, the largest first` : "No cluster has several clips.";
  const lines = rows.map(({ cluster, clips, kept }) => (
    { text: cluster, clips, of: kept, where: `cluster = ${quoted(cluster)}`, status: "candidates" }
  ));
  at("groups-bars").replaceChildren(...lines.map((line) => bar(line, lines[0].clips)));
  markFunnel();
});

function droppedLine({ stage, status, reason, clips }) {
  const is = (name, value) => (value === null ? `${name} is null` : `${name} = ${quoted(value)}`);
  const where = [is("status", status), is("stage", stage), is("reason", reason)].join(" and ");
  return { text: reason === stage ? stage : `${stage}: ${reason}`, clips, where, status };
}

function bar({ text, clips, of, where, status }, most) {
  const filled = element("span", { className: `fill ${status}` });
  filled.style.width = `${(100 * clips) / most}%`;
  const count = element("span", { className: "count" }, of === undefined ? number(clips) : `${number(clips)}, ${number(of)} kept`);
  const button = element("button", { type: "button", className: "bar", value: where, title: status }, filled, text, count);
  button.onclick = () => go({ where, move: "", like: "", words: "", box: "", offset: "" });
  return button;
}

/** Mark the bar of the funnel or of the clusters whose clips are listed. */
export function markFunnel() {
  const { where = "", move, like, words, box } = route();
  for (const button of document.querySelectorAll("aside .bar")) {
    button.setAttribute("aria-pressed", !move && !like && !words && !box && button.value === where);
  }
}
