/** Ask the server; of `parameters`, those without a value are left out, and a list is sent value by value. */
export async function ask(answer, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== "") query.append(name, one);
    }
  }
  return read(await fetch(answer.includes("?") ? answer : `api/${answer}?${query}`));
}

/** Send what changes the dataset: a flag, or thresholds. */
export async function send(answer, value) {
  const headers = { "Content-Type": "application/json" };
  return read(await fetch(`api/${answer}`, { method: "POST", headers, body: JSON.stringify(value) }));
}

async function read(response) {
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

const once = new Map();

/** Return an answer that stays the same and is asked for once. */
function askedOnce(answer) {
  if (!once.has(answer)) once.set(answer, ask(answer));
  return once.get(answer);
}

/** Return the columns of the dataset. */
export const columns = () => askedOnce("columns");

/** Return what clips can be compared by. */
export const measures = () => askedOnce("measures");
