// What is shown stands in the address behind `#`, so that the browser's own Back and bookmarks work:
// where, search, move, sort, order, offset and layout of the list; clip, shard and place (in the list) of an open clip;
// like for the clip, or words for the text, that clips are listed by their likeness to, by for what they are compared by,
// map if it is open, colour of its points, and box for the rectangle that clips lie in;
// diff for the comparison, and texts for the first of its clips whose texts are shown.

export function route() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** Return the address of what is shown with some changes; an empty value takes a name away. */
export function link(changes) {
  const parameters = Object.entries({ ...route(), ...changes }).filter(([, value]) => value !== "" && value !== null);
  return `#${new URLSearchParams(parameters)}`;
}

export function go(changes) {
  location.hash = link(changes);
}

export const NO_CLIP = { clip: "", shard: "", place: "" };
export const LIST = { ...NO_CLIP, diff: "", texts: "" };

/** Which clips, in which order, as the server is asked for them. */
export function query() {
  const { where = "", search = "", move = "", sort = "", order = "", like = "", words = "", by = "", box = "" } = route();
  return { where, search, move, sort, order, like, words, by, box };
}

/** All clips again. */
export const ALL = { search: "", words: "", move: "", like: "", box: "", offset: "" };

/** Return a text as a constant of a condition. */
export function quoted(text) {
  return `'${text.replaceAll("'", "''")}'`;
}
