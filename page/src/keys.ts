// Keyboard: places register what single keys do while they are shown.
import { useEffect, useRef } from "preact/hooks";
import { settings } from "./settings.ts";

export type Bindings = Record<string, (event: KeyboardEvent) => unknown>;

const layers: { current: Bindings }[] = [];

/** "ctrl+shift+z", "arrowleft", "?": Command counts as Control. */
export function nameOf(event: KeyboardEvent): string {
  const key = event.key.toLowerCase();
  const letter = key.length === 1 && key.toUpperCase() === key.toLowerCase();
  return [
    event.ctrlKey || event.metaKey ? "ctrl+" : "",
    event.altKey ? "alt+" : "",
    event.shiftKey && !letter ? "shift+" : "",
    key,
  ].join("");
}

/** Whether keys at an element are text. */
export const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  (target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName) ||
    (target instanceof HTMLInputElement && !/^(checkbox|radio|range|button)$/.test(target.type)));

/** Keys that a control uses itself. */
const taken = (target: EventTarget | null, name: string): boolean =>
  target instanceof HTMLInputElement && /^(range|radio)$/.test(target.type) && /^(arrow|home|end|page)/.test(name);

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  const name = nameOf(event);
  const single = !/^(ctrl|alt)\+/.test(name) && !/^(escape|arrow)/.test(name);
  if (name !== "escape" && !name.startsWith("ctrl+") && typing(event.target)) return;
  if (name.startsWith("ctrl+") && name !== "ctrl+enter" && typing(event.target)) return;
  if (single && !settings.value.singleKeys) return;
  if (taken(event.target, name)) return;
  if (document.querySelector("dialog[open]")) return;
  for (const layer of [...layers].reverse()) {
    const react = layer.current[name];
    if (react && react(event) !== false) {
      event.preventDefault();
      return;
    }
  }
});

/** Keys of a component while it is shown; those of later ones come first. A handler that returns false passes the key on. */
export function useKeys(bindings: Bindings): void {
  const layer = useRef(bindings);
  layer.current = bindings;
  useEffect(() => {
    layers.push(layer);
    return () => void layers.splice(layers.indexOf(layer), 1);
  }, []);
}
