import { send } from "./api.js";
import { element, guarded, say } from "./dom.js";

const FLAGS = [
  ["wrong_caption", "Wrong caption"], ["misaligned", "Misaligned"], ["unsafe", "Unsafe"], ["remove", "Remove"],
];

/** Return a form that sets and clears the flags of a clip, each with a note. */
export function flagForm(clip) {
  let flags = clip.flags;
  const form = element("section", { className: "flags", "aria-label": "Flags" }, element("h3", {}, "Flags"));
  const rows = FLAGS.map(([name, text], k) => {
    const button = element("button", { type: "button", value: name, "aria-keyshortcuts": k + 1 }, text);
    const note = element("input", { type: "text", placeholder: "note", "aria-label": `Note of ${text}` });
    const save = guarded(async (isSet) => {
      ({ flags } = await send("flags", { clip: clip.row.clip_id, flag: name, is_set: isSet, note: note.value }));
      say(isSet ? `flagged: ${name}` : `no longer flagged: ${name}`);
      show();
    });
    button.onclick = () => save(!(name in flags));
    // A note alone changes the flag that it belongs to.
    note.onchange = () => name in flags && save(true);
    form.append(element("div", {}, button, note));
    return { name, button, note };
  });
  function show() {
    for (const { name, button, note } of rows) {
      button.setAttribute("aria-pressed", name in flags);
      note.value = flags[name] ?? note.value;
    }
  }
  show();
  return form;
}
