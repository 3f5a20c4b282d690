import { signal } from "@preact/signals";
import { text } from "../text.ts";
import { Dialog } from "./dialog.tsx";

export const helpOpen = signal(false);

const { rows, keys } = text.help;
const G = ["g", keys.then] as const;

const groups: [string, [string, string[]][]][] = [
  [text.help.everywhere, [
    [rows.help, ["?"]], [rows.focus, ["/"]],
    [rows.goCreate, [...G, "c"]], [rows.goLibrary, [...G, "l"]], [rows.goEditor, [...G, "e"]], [rows.goQueue, [...G, "q"]],
    [rows.escape, [keys.escape]],
  ]],
  [text.help.create, [
    [rows.generate, [keys.enter]], [rows.newline, [keys.shift, keys.enter]], [rows.surprise, ["r"]], [rows.batch, ["b"]],
  ]],
  [text.help.image, [
    [rows.variations, ["v"]], [rows.edit, ["e"]], [rows.reuse, ["u"]], [rows.captions, ["t"]], [rows.star, ["s"]], [rows.download, ["d"]],
    [rows.remove, [keys.del]], [rows.neighbours, ["←", "→"]],
  ]],
  [text.help.editor, [
    [rows.brush, ["b"]], [rows.eraser, ["e"]], [rows.lasso, ["a"]], [rows.box, ["x"]], [rows.pan, ["h"]], [rows.size, ["[", "]"]],
    [rows.undo, [keys.ctrl, "z"]], [rows.redo, [keys.ctrl, keys.shift, "z"]], [rows.zoom, ["+", "−", "0"]],
    [rows.draw, [keys.ctrl, keys.enter]], [rows.marks, ["m"]], [rows.modes, ["1", "2", "3"]], [rows.frame, [keys.arrows]],
  ]],
  [text.help.library, [
    [rows.move, [keys.arrows]], [rows.open, [keys.enter]], [rows.select, ["x"]], [rows.all, [keys.ctrl, "a"]],
    [rows.remove, [keys.del]],
  ]],
];

export function Help() {
  if (!helpOpen.value) return null;
  return (
    <Dialog title={text.help.title} wide onClose={() => (helpOpen.value = false)}>
      <div class="help">
        {groups.map(([name, entries]) => (
          <section key={name}>
            <h3>{name}</h3>
            <dl>
              {entries.map(([what, how]) => (
                <div key={what}>
                  <dt>{what}</dt>
                  <dd>{how.map((key, index) => (key === keys.then ? ` ${key} ` : <kbd key={index}>{key}</kbd>))}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  );
}
