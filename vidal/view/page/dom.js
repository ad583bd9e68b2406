// Every text of a dataset is a stranger's: it goes into the page as text, never as markup.

export const at = (id) => document.getElementById(id);

/** Return a new element; names with a dash are attributes, the others properties; strings among children are text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** Return a copy of the drawing in a template, as SVG made by a script would need the address of its namespace. */
export function drawing(template, label) {
  const made = at(template).content.firstElementChild.cloneNode(true);
  made.setAttribute("aria-label", label);
  return made;
}

/** Return a list of terms with their values, which may be elements or texts. */
export function terms(pairs) {
  const list = element("dl");
  for (const [term, value, about] of pairs) {
    list.append(element("dt", { title: about ?? "" }, term), element("dd", {}, value));
  }
  return list;
}

/** Return a section that folds. */
export function folded(title, isOpen, ...children) {
  return element("details", { open: isOpen }, element("summary", {}, title), ...children);
}

export function say(text) {
  at("message").textContent = text;
}

/** Return a function that does the same work, and shows an error instead of raising it. */
export function guarded(work) {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      say(error.message);
    }
  };
}

/** Return a function that runs one call at a time and, of those that came meanwhile, the last alone. */
export function latest(work) {
  let isRunning = false;
  let next = null;
  return async function run(...given) {
    if (isRunning) {
      next = given;
      return;
    }
    isRunning = true;
    await work(...given);
    isRunning = false;
    if (next) {
      const waiting = next;
      next = null;
      await run(...waiting);
    }
  };
}

export function number(value) {
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}
