import { ask, columns, send } from "./api.js";
import { at, drawing, element, guarded, latest, number } from "./dom.js";
import { go, query, route } from "./route.js";

const STEPS = 200;
const FIRST_SHOWN = 3;
const FIRST_TRIED = 8;
const cards = new Map();

/** The columns with a slider that bounds something. */
export function boundColumns() {
  return [...cards.values()].filter((card) => card.bounds.length).map((card) => card.name);
}

/** Offer the numbers of the dataset, and show the first scores. */
export const showThresholds = guarded(async () => {
  const numeric = (await columns()).filter((column) => column.is_numeric);
  at("column").append(...numeric.map(({ name, doc }) => element("option", { title: doc, value: name }, name)));
  at("column").onchange = () => {
    addCard(numeric.find(({ name }) => name === at("column").value));
    at("column").value = "";
  };
  for (const column of numeric.filter(({ group }) => group === "scores").slice(0, FIRST_TRIED)) {
    if (cards.size < FIRST_SHOWN) await addCard(column, { isOnlyWithClips: true });
  }
  await count();
});

const addCard = guarded(async (column, { isOnlyWithClips = false } = {}) => {
  if (!column || cards.has(column.name)) return;
  // Asked first: it brings the column into the server's memory, so that a slider is answered at once.
  const histogram = await ask("histogram", { column: column.name });
  if (isOnlyWithClips && !histogram.clips) return;
  const card = new Card(column, histogram);
  cards.set(column.name, card);
  at("cards").append(card.element);
});

/** The histogram of one column, with a slider for the least and one for the most. */
class Card {
  constructor({ name, type, doc }, histogram) {
    this.name = name;
    this.histogram = histogram;
    this.isWhole = type.includes("int");
    this.plot = drawing("histogram", `histogram of ${name}`);
    this.kept = element("output");
    this.least = this.slider("at least", 0);
    this.most = this.slider("at most", STEPS);
    const { clips, missing, min, max } = histogram;
    const range = clips ? `${number(min)} to ${number(max)}` : "no clip has this number";
    const close = element("button", { type: "button", "aria-label": `Close ${name}`, onclick: () => this.remove() }, "✕");
    const about = element("p", { className: "soft" }, [doc, range, missing && `missing: ${number(missing)}`].filter(Boolean).join(" · "));
    this.element = element("section", { className: "card", "aria-label": name }, element("h3", {}, name, close), about);
    if (clips) this.element.append(this.plot, this.least, this.most, this.kept);
    this.draw();
  }

  slider(text, start) {
    const input = element("input", { type: "range", min: 0, max: STEPS, value: start, "aria-label": `${this.name} ${text}` });
    const shown = element("span", { className: "limit" }, "any");
    input.oninput = () => {
      const limit = this.limit(input, start);
      shown.textContent = limit === null ? "any" : number(limit);
      input.setAttribute("aria-valuetext", shown.textContent);
      this.draw();
      count();
    };
    return element("label", {}, text, input, shown);
  }

  /** Return the limit at a slider, or null at its end, where it bounds nothing. */
  limit(input, start) {
    if (Number(input.value) === start) return null;
    const { edges } = this.histogram;
    const value = edges[0] + ((edges.at(-1) - edges[0]) * input.value) / STEPS;
    return this.isWhole ? Math.round(value) : Number(value.toPrecision(4));
  }

  get limits() {
    return [this.limit(this.least.querySelector("input"), 0), this.limit(this.most.querySelector("input"), STEPS)];
  }

  get bounds() {
    const [least, most] = this.limits;
    return [least !== null && `${this.name}>=${least}`, most !== null && `${this.name}<=${most}`].filter(Boolean);
  }

  draw() {
    const { edges, kept, others } = this.histogram;
    const [least, most] = this.limits;
    const highest = Math.max(1, ...kept.map((clips, k) => clips + others[k]));
    const passes = (k) => (least === null || edges[k + 1] > least) && (most === null || edges[k] <= most);
    const paths = { passing: "", failing: "", others: "" };
    kept.forEach((clips, k) => {
      const [x, width] = [(1000 * k) / kept.length, 1000 / kept.length - 2];
      const box = (from, height) => `M${x} ${100 - from - height}h${width}v${height}h${-width}Z`;
      const [low, high] = [(100 * clips) / highest, (100 * others[k]) / highest];
      paths[passes(k) ? "passing" : "failing"] += box(0, low);
      paths.others += box(low, high);
    });
    for (const [name, path] of Object.entries(paths)) this.plot.querySelector(`.${name}`).setAttribute("d", path);
  }

  show(kept, each) {
    const own = each.filter(({ column }) => column === this.name).map(({ clips }) => clips);
    this.kept.textContent = own.length ? `alone keeps ${own.map(number).join(" and ")} of ${number(kept)}` : "";
  }

  remove() {
    cards.delete(this.name);
    this.element.remove();
    count();
  }
}

/** Show how many clips all sliders keep together, and what applies them elsewhere. */
export const count = latest(guarded(async () => {
  const { where, search, move, by, box } = query();
  const bound = [...cards.values()].flatMap((card) => card.bounds);
  const [counted, recipe] = await Promise.all([ask("count", { where, search, move, by, box, bound }), ask("recipe", { bound })]);
  at("kept").textContent = `${number(counted.clips)} of ${number(counted.kept)} kept clips pass`;
  for (const card of cards.values()) card.show(counted.kept, counted.each);
  at("applied").hidden = !bound.length;
  if (!bound.length) return;
  const left = recipe.without_stage.length ? `no filter of the recipe decides on ${recipe.without_stage.join(", ")}` : "";
  at("without").textContent = left;
  const pieces = { condition: `--where "${recipe.where}"`, command: recipe.command, patch: recipe.stages };
  for (const [id, text] of Object.entries(pieces)) {
    at(id).parentElement.hidden = !text;
    at(id).textContent = text;
  }
  at("refilter").hidden = !recipe.command;
  at("refiltered").hidden = true;
  at("refilter").onclick = () => writeRevision(bound);
  at("passing").onclick = () => go({ where: among(recipe.where), offset: "" });
  at("failing").onclick = () => go({ where: among(`not (${recipe.where})`), offset: "" });
}));

/** Apply the thresholds to the dataset, as its next revision. */
async function writeRevision(bounds) {
  at("refilter").disabled = true;
  await guarded(async () => {
    const { lines } = await send("refilter", { bounds });
    at("refiltered").textContent = lines.join("\n");
    at("refiltered").hidden = false;
  })();
  at("refilter").disabled = false;
}

/** Return a condition within the one that is shown, of kept clips, as only these are counted. */
function among(condition) {
  const { where = "" } = route();
  return [where ? `(${where})` : "", "status = 'kept'", condition].filter(Boolean).join(" and ");
}
