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

export async function flag(clip, name, isSet, note) {
  const sent = { clip, flag: name, is_set: isSet, note };
  const headers = { "Content-Type": "application/json" };
  return read(await fetch("api/flags", { method: "POST", headers, body: JSON.stringify(sent) }));
}

async function read(response) {
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

let asked;

/** Return the columns of the dataset, which are asked for once. */
export function columns() {
  asked ??= ask("columns");
  return asked;
}
