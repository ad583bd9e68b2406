import { ask, columns, measures } from "./api.js";
import { outcomeText } from "./clip.js";
import { at, element, guarded, latest, number } from "./dom.js";
import { go, link, route } from "./route.js";

const COLOURS = ["#3b82f6", "#e08a00", "#14a37f", "#d1499b", "#8b6cef", "#d9480f", "#7a9a01", "#8795a5"];
const MARGIN_PX = 12;
const POINT_PX = 5;
const NEAR_PX = 8;
/** A pointer that moved less was not drawing a rectangle. */
const CLICK_PX = 4;

let shown = null;
let asked = "";
let drag = null;

/** Show the map if it is open; `isCurrent` tells whether what was asked for is still wanted. */
export const showMap = guarded(async (isCurrent) => {
  const compared = await measures();
  at("map").hidden = !compared.length;
  const { map, by, colour = "status" } = route();
  if (map) at("map").open = true;
  if (!compared.length || !at("map").open) return;
  await offerChoices(compared);
  at("map-by").value = by ?? compared[0].name;
  at("map-colour").value = colour;
  const wanted = JSON.stringify([by, colour]);
  if (wanted !== asked) {
    at("map-about").textContent = "computing …";
    const answer = await ask("map", { by, colour });
    if (!isCurrent()) return;
    [shown, asked] = [answer, wanted];
    describe();
  }
  draw();
});

async function offerChoices(compared) {
  if (at("map-by").options.length) return;
  at("map-by").append(...compared.map(({ name, text }) => element("option", { value: name }, text)));
  const categories = (await columns()).filter((column) => column.is_category);
  at("map-colour").append(...categories.map(({ name }) => element("option", {}, name)));
}

function describe() {
  const { drawn, clips, rows, measure, variance_share: share, values } = shown;
  const which = drawn < clips ? `${number(drawn)} of ${number(clips)} clips, drawn at random` : `${number(drawn)} clips`;
  const without = rows > clips ? `; ${number(rows - clips)} have nothing to compare by` : "";
  at("map-about").textContent =
    `${which}${without}. The first two principal components of ${measure.text}: ${number(100 * share)} % of the variance. ` +
    "Draw a rectangle to list the clips in it; click a point to open its clip.";
  at("map-legend").replaceChildren(...values.map(({ value, clips: count }, k) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = COLOURS[k];
    return element("span", { className: "key" }, swatch, `${value} ${number(count)}`);
  }));
}

/** The scale of the map: both components alike, so that distances can be seen. */
function scale() {
  const { clientWidth: width, clientHeight: height } = at("map-canvas");
  const [x, y] = [extent(shown.x), extent(shown.y)];
  const room = (pixels) => Math.max(1, pixels - 2 * MARGIN_PX);
  const per = Math.min(room(width) / (x.range || 1), room(height) / (y.range || 1));
  return {
    across: (value) => width / 2 + (value - x.middle) * per, up: (value) => height / 2 - (value - y.middle) * per,
    x: (pixel) => (pixel - width / 2) / per + x.middle, y: (pixel) => (height / 2 - pixel) / per + y.middle,
  };
}

function extent(values) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return { middle: values.length ? (least + most) / 2 : 0, range: values.length ? most - least : 0 };
}

function draw() {
  if (!shown || !at("map").open) return;
  const canvas = at("map-canvas");
  const ratio = devicePixelRatio;
  [canvas.width, canvas.height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const { across, up } = scale();
  const size = shown.drawn > 2000 ? POINT_PX / 2 : shown.drawn > 200 ? POINT_PX : 2 * POINT_PX;
  pen.globalAlpha = 0.75;
  // The most frequent value first, so that the others are not covered by it.
  for (let value = 0; value < shown.values.length; value++) {
    pen.fillStyle = COLOURS[value];
    shown.value.forEach((its, k) => {
      if (its === value) pen.fillRect(across(shown.x[k]) - size / 2, up(shown.y[k]) - size / 2, size, size);
    });
  }
  outline(pen, across, up);
  canvas.dataset.drawn = shown.drawn;
}

function outline(pen, across, up) {
  const { box } = route();
  let corners = drag && [drag.from, drag.to];
  if (!corners && box) {
    const [left, bottom, right, top] = box.split(",").map(Number);
    corners = [[across(left), up(top)], [across(right), up(bottom)]];
  }
  if (!corners) return;
  const [[x, y], [otherX, otherY]] = corners;
  pen.globalAlpha = 1;
  pen.strokeStyle = COLOURS[0];
  pen.lineWidth = 2;
  pen.strokeRect(x, y, otherX - x, otherY - y);
}

/** Say above the list that its clips lie in a rectangle, and offer to take it away. */
export function markBox() {
  const { box } = route();
  at("boxed").hidden = !box;
  const all = element("button", { type: "button", onclick: () => go({ box: "", offset: "" }) }, "All clips");
  at("boxed").replaceChildren("In a rectangle of the map ", all);
}

function nearest([x, y]) {
  const { across, up } = scale();
  let [found, least] = [null, NEAR_PX ** 2];
  for (let k = 0; k < shown.x.length; k++) {
    const distance = (across(shown.x[k]) - x) ** 2 + (up(shown.y[k]) - y) ** 2;
    if (distance <= least) [found, least] = [k, distance];
  }
  return found;
}

/** Show the thumbnail and the title of the clip under the pointer. */
const hover = latest(guarded(async (place) => {
  const k = nearest(place);
  at("map-clip").hidden = k === null;
  at("map-canvas").classList.toggle("over", k !== null);
  if (k === null || at("map-clip").dataset.clip === shown.clip[k]) return;
  const { row, thumbnail } = await ask("clip", { clip: shown.clip[k], shard: shown.shard[k] });
  const image = element("img", { src: thumbnail, alt: "" });
  image.onerror = () => image.remove();
  const outcome = element("span", { className: row.status }, outcomeText(row));
  at("map-clip").replaceChildren(image, element("strong", {}, row.title || row.caption || row.clip_id), outcome);
  at("map-clip").dataset.clip = row.clip_id;
}));

function finish() {
  const { from, to } = drag;
  drag = null;
  if (Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])) < CLICK_PX) {
    const k = nearest(to);
    draw();
    if (k !== null) go({ clip: shown.clip[k], shard: shown.shard[k], map: 1 });
    return;
  }
  const { x, y } = scale();
  const [xs, ys] = [[x(from[0]), x(to[0])].sort(ascending), [y(from[1]), y(to[1])].sort(ascending)];
  const box = [xs[0], ys[0], xs[1], ys[1]].map((edge) => Number(edge.toPrecision(6))).join(",");
  go({ map: 1, box, offset: "" });
}

const ascending = (a, b) => a - b;

export function listenToMap() {
  const canvas = at("map-canvas");
  at("map").ontoggle = () => {
    if (at("map").open !== Boolean(route().map)) history.replaceState(null, "", link({ map: at("map").open ? 1 : "" }));
    showMap(() => true);
  };
  at("map-by").onchange = () => go({ by: at("map-by").value, box: "", offset: "", map: 1 });
  at("map-colour").onchange = () => go({ colour: at("map-colour").value, map: 1 });
  new ResizeObserver(draw).observe(canvas);
  canvas.onpointerdown = (event) => {
    if (!shown || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    drag = { from: [event.offsetX, event.offsetY], to: [event.offsetX, event.offsetY] };
  };
  canvas.onpointermove = (event) => {
    if (!shown) return;
    if (!drag) return hover([event.offsetX, event.offsetY]);
    drag.to = [event.offsetX, event.offsetY];
    draw();
  };
  canvas.onpointerup = () => drag && finish();
  canvas.onpointercancel = () => {
    drag = null;
    draw();
  };
  canvas.onpointerleave = () => (at("map-clip").hidden = true);
}
