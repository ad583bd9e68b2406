import { ask } from "./api.js";
import { at, element, guarded, number } from "./dom.js";
import { ALL, LIST, go, link, route } from "./route.js";

const PAGE = 20;
let asked;

/** The moves of clips between the two datasets, which are asked for once. */
function summary() {
  asked ??= ask("diff");
  return asked;
}

/** Show the comparison of the address; `isCurrent` tells whether it is still the one that is wanted. */
export const showDiff = guarded(async (isCurrent) => {
  const offset = Number(route().texts ?? 0);
  const [diff, page] = await Promise.all([summary(), ask("texts", { offset, limit: PAGE })]);
  if (!isCurrent()) return;
  const numbers = element("div", { id: "shifts" }, element("p", { className: "soft" }, "comparing …"));
  const heading = element("h2", { tabIndex: -1 }, `Compared with ${diff.against}`);
  at("diff").replaceChildren(
    element("nav", { "aria-label": "Comparison", className: "steps" }, element("a", { href: link(LIST), id: "leave" }, "All clips")),
    heading, ...diff.matching.map((line) => element("p", { className: "soft" }, line)),
    element("section", {}, element("h3", {}, "Clips"), ...moves(diff.moves)),
    element("section", {}, element("h3", {}, "Numbers of kept clips"), numbers),
    element("section", {}, element("h3", {}, "Texts"), ...texts(page, offset, diff)),
    element("section", {}, element("h3", {}, "Settings that differ"), element("pre", {}, diff.settings.join("\n") || "none")),
  );
  heading.focus();
  const shifts = await ask("shifts");
  if (isCurrent()) numbers.replaceChildren(...shifted(shifts));
});

function moves(all) {
  const most = Math.max(1, ...all.map(({ clips }) => clips));
  return all.map((move) => {
    const filled = element("span", { className: `fill ${move.after.status}` });
    filled.style.width = `${(100 * move.clips) / most}%`;
    const label = element("span", {}, element("strong", {}, KINDS[move.kind]), ` ${move.before_text} → ${move.after_text}`);
    const bar = element("button", { type: "button", className: "bar", value: move.move }, filled, label, element("span", { className: "count" }, number(move.clips)));
    // A clip that is no candidate here has no row to show.
    if (move.listed) bar.onclick = () => go({ ...LIST, ...ALL, move: move.move, where: "" });
    else bar.disabled = true;
    return move.listed ? bar : element("div", {}, bar, element("p", { className: "soft" }, ids(move)));
  });
}

const KINDS = { went: "went", came: "came", kept: "stayed", other: "other", same: "out of both" };

function ids({ examples, clips }) {
  const more = clips - examples.length;
  return [examples.join(", "), more > 0 && `and ${number(more)} more`].filter(Boolean).join(" ");
}

function shifted({ all, drawn, kept, only }) {
  const sides = Object.entries(only).filter(([, names]) => names.length);
  const notes = sides.map(([side, names]) => element("p", { className: "soft" }, `only ${side}: ${names.join(", ")}`));
  if (drawn < kept) notes.push(element("p", { className: "soft" }, `distances over ${number(drawn)} of ${number(kept)} clips`));
  if (!all.length) return [element("p", {}, "No number changed."), ...notes];
  const heads = ["number", "mean before", "mean after", "distance", "95 %", "changed", "mean change", "95 %"];
  const rows = all.map((one) => {
    const change = one.change === null ? ["", ""] : [number(one.change), interval(one.change_interval)];
    const changed = `${number(one.changed)} of ${number(one.paired)}`;
    return [one.column, ...one.means.map(number), number(one.distance), interval(one.distance_interval), changed, ...change];
  });
  return [table(heads, rows), ...notes];
}

function interval([low, high]) {
  return `${number(low)} to ${number(high)}`;
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const lines = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  return element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
}

function texts({ clips, rows }, offset, { changed_texts: counts }) {
  if (!clips) return [element("p", {}, "No text changed of the clips that both kept.")];
  const each = Object.entries(counts).filter(([name]) => name !== "clips").map(([name, count]) => `${name} ${number(count)}`);
  const lines = rows.flatMap(({ clip_id: clip, shard, texts: changed }) => changed.map((text, k) => [
    k ? "" : element("a", { href: link({ clip, shard }) }, clip), text.column, ...["before", "after"].map((side) => said(text, side)),
  ]));
  const step = (id, label, to, isThere) =>
    element("button", { type: "button", id, disabled: !isThere, onclick: () => go({ texts: Math.max(0, to) || "" }) }, label);
  return [
    element("p", { className: "soft" }, `${number(clips)} clips: ${each.join(", ")}`),
    table(["clip", "text", "before", "after"], lines),
    element(
      "nav", { "aria-label": "Pages of texts" }, step("texts-earlier", "Earlier", offset - PAGE, offset > 0), " ",
      step("texts-later", "Later", offset + PAGE, offset + rows.length < clips),
    ),
  ];
}

function said(text, side) {
  const model = text[`${side}_model`];
  return element("span", { className: "said" }, text[side], model ? element("span", { className: "soft" }, ` (${model})`) : "");
}

/** Say above the list which move its clips made, and offer to take it away. */
export const markMove = guarded(async () => {
  const { move } = route();
  at("moved").hidden = move === undefined;
  if (move === undefined) return;
  const made = (await summary()).moves[Number(move)];
  const all = element("button", { type: "button", onclick: () => go({ move: "", offset: "" }) }, "All clips");
  at("moved").replaceChildren(made ? `${KINDS[made.kind]}: ${made.before_text} → ${made.after_text} ` : "no such move ", all);
});
