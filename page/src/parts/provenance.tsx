// How a picture was made: as a table, and as text to copy into other programs.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { attempt, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Picture, Sampling } from "../types.ts";
import { Button } from "./controls.tsx";
import { Icon } from "./icons.tsx";

const words = text.image;
const views = ["table", "json", "cli", "python", "curl"] as const;
type View = (typeof views)[number];

export const momentOf = (iso: string): string =>
  new Date(iso).toLocaleString(text.language, { dateStyle: "medium", timeStyle: "short" });

const capital = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
const shown = (value: unknown): string => (typeof value === "object" ? JSON.stringify(value) : String(value));

/** Rows of the table: the picture's own, then the fields of its request. */
export function rowsOf(picture: Picture): [string, string][] {
  const { fields } = words;
  const rows: [string, string | number | null | undefined][] = [
    [fields.kind, text.kindOf(picture.kind)],
    [fields.prompt, picture.prompt],
    [fields.model, picture.model],
    [fields.seed, picture.seed],
    [fields.size, `${picture.width} × ${picture.height}`],
    [fields.created, momentOf(picture.created)],
  ];
  for (const [name, value] of Object.entries(picture.request)) {
    if (["kind", "prompt", "seed", "sampling", "size", "n", "frames"].includes(name) || value === null) continue;
    rows.push([name === "negative" ? fields.negative : capital(words.fieldOf(name)), shown(value)]);
  }
  for (const [stage, settings] of Object.entries((picture.request["sampling"] ?? {}) as Sampling)) {
    const stages = Array.isArray(settings) ? settings : [settings];
    stages.forEach((one, index) => {
      const name = `${words.stages[stage] ?? stage}${stages.length > 1 ? ` ${index + 1}` : ""}`;
      if (one === null || one === undefined) return;
      if (typeof one !== "object") rows.push([name, shown(one)]);
      else {
        const pairs = Object.entries(one).filter(([, value]) => value !== null);
        if (pairs.length) rows.push([name, pairs.map(([field, value]) => `${words.fieldOf(field)} ${shown(value)}`).join(", ")]);
      }
    });
  }
  return rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [name, String(value)]);
}

export async function copy(content: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(content);
    toast(text.common.copied);
  } catch {
    toast(text.errors.clipboard, { bad: true });
  }
}

export function Provenance({ picture }: { picture: Picture }) {
  const [view, setView] = useState<View>("table");
  const [commands, setCommands] = useState<Record<string, unknown> | null>(null);
  useEffect(() => {
    if (view === "table" || commands) return;
    void attempt(async () => setCommands(await api.commands(picture.id)));
  }, [view]);
  const given = commands?.[view];
  const content = given === undefined ? "" : typeof given === "string" ? given : JSON.stringify(given, null, 2);
  const keys = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = views[(views.indexOf(view) + step + views.length) % views.length]!;
    setView(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <section class="provenance" aria-labelledby="provenance-heading">
      <header>
        <h2 id="provenance-heading">{words.provenance}</h2>
        <span class="badge"><Icon name="badge" />{words.badge}</span>
      </header>
      <div role="tablist" aria-labelledby="provenance-heading" onKeyDown={keys}>
        {views.map((one) => (
          <button
            key={one} id={`tab-${one}`} type="button" role="tab" aria-selected={one === view} aria-controls="provenance-panel"
            tabIndex={one === view ? 0 : -1} onClick={() => setView(one)}
          >
            {words[one]}
          </button>
        ))}
      </div>
      <div id="provenance-panel" role="tabpanel" aria-labelledby={`tab-${view}`} tabIndex={0}>
        {view === "table" ? (
          <table>
            <tbody>
              {rowsOf(picture).map(([name, value]) => <tr key={name}><th scope="row">{name}</th><td>{value}</td></tr>)}
            </tbody>
          </table>
        ) : <pre>{content || text.common.loading}</pre>}
      </div>
      {view !== "table" && content && (
        <Button small icon="copy" onClick={() => copy(content)}>{words.copyOf(words[view])}</Button>
      )}
    </section>
  );
}
