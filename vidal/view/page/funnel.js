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
  if (summary.open) at("funnel").append(element("p", { className: "soft" }, `${number(summary.open)} not built yet`));
  at("compared").hidden = !summary.against;
  at("compared").textContent = summary.against ? `Compared with ${summary.against}` : "";
  at("compared").href = link({ ...LIST, diff: 1 });
  markFunnel();
});

function droppedLine({ stage, status, reason, clips }) {
  const is = (name, value) => (value === null ? `${name} is null` : `${name} = ${quoted(value)}`);
  const where = [is("status", status), is("stage", stage), is("reason", reason)].join(" and ");
  return { text: reason === stage ? stage : `${stage}: ${reason}`, clips, where, status };
}

function bar({ text, clips, where, status }, most) {
  const filled = element("span", { className: `fill ${status}` });
  filled.style.width = `${(100 * clips) / most}%`;
  const count = element("span", { className: "count" }, number(clips));
  const button = element("button", { type: "button", className: "bar", value: where, title: status }, filled, text, count);
  button.onclick = () => go({ where, move: "", like: "", box: "", offset: "" });
  return button;
}

/** Mark the bar whose clips are listed. */
export function markFunnel() {
  const { where = "", move, like, box } = route();
  for (const button of at("funnel").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", !move && !like && !box && button.value === where);
  }
}
