// Library: all pictures by day, to be searched, filtered, gathered in collections, exported and deleted.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api.ts";
import { useKeys } from "../keys.ts";
import { Collect, collections, readCollections } from "../parts/collect.tsx";
import { Button, Select, Field } from "../parts/controls.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { ChooseFile, offer } from "../parts/drop.tsx";
import { Icon } from "../parts/icons.tsx";
import { altOf, Thumbnail } from "../parts/tile.tsx";
import { removePictures, restorePictures } from "../pictures.ts";
import { link } from "../route.ts";
import { choicesOf, nameOfSize } from "../sizes.ts";
import { attempt, config, libraryChanged, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Collection, Picture } from "../types.ts";

const words = text.library;
const PAGE = 60;
/** Pictures that are read again at a time, when the library changes. */
const MOST = 480;

interface Filter {
  query: string;
  kind: string;
  model: string;
  size: string;
  starred: boolean;
  deleted: boolean;
  collection: string;
}

const NO_FILTER: Filter = { query: "", kind: "", model: "", size: "", starred: false, deleted: false, collection: "" };
/** Kept while the tab is open, so that coming back from a picture shows what was there. */
const filter = signal<Filter>(NO_FILTER);

/** The day of a picture, in words where it is near. */
export function dayOf(iso: string, now = new Date()): string {
  const then = new Date(iso);
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  if (then.getTime() >= midnight) return words.today;
  if (then.getTime() >= midnight - 86_400_000) return words.yesterday;
  return then.toLocaleDateString(text.language, { dateStyle: "full" });
}

export function byDay(pictures: readonly Picture[], now = new Date()): [string, Picture[]][] {
  const days = new Map<string, Picture[]>();
  for (const one of pictures) {
    const day = dayOf(one.created, now);
    days.set(day, [...(days.get(day) ?? []), one]);
  }
  return [...days];
}

/** Pictures that fit the filter, page by page; read again when the library changes. */
function usePictures(wanted: Filter) {
  const [pictures, setPictures] = useState<Picture[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [total, setTotal] = useState<number | null>(null);
  const asked = useRef(0);
  const size = useRef(PAGE);
  const key = JSON.stringify(wanted);
  const read = async (cursor: string | null, limit = PAGE) => {
    const mine = ++asked.current;
    const { starred, deleted, ...others } = wanted;
    const page = await attempt(() =>
      api.pictures({ ...others, ...(starred ? { starred } : {}), ...(deleted ? { deleted } : {}), cursor, limit }));
    if (!page || mine !== asked.current) return;
    setPictures((before) => [...(cursor ? before ?? [] : []), ...page.items]);
    setNext(page.next);
    setTotal(page.total ?? null);
  };
  useEffect(() => {
    size.current = PAGE;
    const timer = setTimeout(() => void read(null), wanted.query ? 250 : 0);
    return () => clearTimeout(timer);
  }, [key]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else void read(null, size.current);
  }, [libraryChanged.value]);
  const more = () => {
    size.current = Math.min(size.current + PAGE, MOST);
    return read(next);
  };
  return { pictures, total, more: next ? more : null };
}

function CollectionDialog({ collection, onClose }: { collection: Collection; onClose: () => void }) {
  const [name, setName] = useState(collection.name);
  return (
    <Dialog title={words.collection} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void attempt(async () => {
            await api.renameCollection(collection.id, name.trim());
            await readCollections();
            onClose();
          });
        }}
      >
        <Field label={words.collectionName} wide>
          {(id) => <input id={id} type="text" required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <footer class="actions">
          <Button
            look="danger" icon="trash"
            onClick={() => attempt(async () => {
              await api.removeCollection(collection.id);
              filter.value = { ...filter.value, collection: "" };
              await readCollections();
              onClose();
            })}
          >
            {text.common.remove}
          </Button>
          <Button look="primary" type="submit" disabled={!name.trim()}>{text.common.save}</Button>
        </footer>
        <p class="muted">{words.removeCollection}</p>
      </form>
    </Dialog>
  );
}

function Filters() {
  const [editing, setEditing] = useState<Collection | null>(null);
  const [folded, setFolded] = useState(true);
  useEffect(() => void readCollections(), [libraryChanged.value]);
  const now = filter.value;
  const put = (change: Partial<Filter>) => (filter.value = { ...now, ...change });
  const any = ["", words.any] as const;
  const chosen = collections.value.find((one) => one.id === now.collection);
  const sizes = [...new Set((config.value?.models ?? []).flatMap((one) => choicesOf(one, one.longest_side ?? Infinity).map(nameOfSize)))]
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const active = [now.kind, now.model, now.size].filter(Boolean).length;
  return (
    <div class="filters" role="search">
      <div class="search">
        <Icon name="search" />
        <input
          data-words type="search" aria-label={words.search} placeholder={words.search} value={now.query}
          onInput={(event) => put({ query: event.currentTarget.value })}
        />
      </div>
      <div class="chips">
        <button type="button" class="chip" aria-pressed={now.starred} onClick={() => put({ starred: !now.starred })}>
          <Icon name="star" filled={now.starred} />{words.starred}
        </button>
        {collections.value.map((one) => (
          <button
            key={one.id} type="button" class="chip" aria-pressed={now.collection === one.id}
            onClick={() => put({ collection: now.collection === one.id ? "" : one.id })}
          >
            <Icon name="folder" />{one.name}
          </button>
        ))}
        {chosen && <Button look="quiet" small icon="gear" label={words.editCollection(chosen.name)} onClick={() => setEditing(chosen)} />}
        <button type="button" class="chip" aria-pressed={now.deleted} onClick={() => put({ deleted: !now.deleted })}>
          <Icon name="trash" />{words.bin}
        </button>
        <Button look="quiet" small icon="slider" expanded={!folded} onClick={() => setFolded(!folded)}>
          {active ? `${words.filters} (${active})` : words.filters}
        </Button>
      </div>
      {!folded && (
        <div class="filter-fields">
          <Select label={words.kind} value={now.kind} onChange={(kind) => put({ kind })} choices={[any, ...Object.entries(text.kinds)]} />
          <Select
            label={words.model} value={now.model} onChange={(model) => put({ model })}
            choices={[any, ...(config.value?.models ?? []).map((one) => [one.name, one.title ?? one.name] as const)]}
          />
          <Select
            label={words.size} value={now.size} onChange={(size) => put({ size })}
            choices={[any, ...sizes.map((size) => [size, text.options.pixels(size)] as const)]}
          />
        </div>
      )}
      {editing && <CollectionDialog collection={editing} onClose={() => setEditing(null)} />}
    </div>
  );
}

interface SelectionProps {
  chosen: readonly Picture[];
  onClear: () => void;
}

function SelectionBar({ chosen, onClear }: SelectionProps) {
  const ids = chosen.map((one) => one.id);
  const here = filter.value;
  const zip = () => attempt(async () => {
    const url = URL.createObjectURL(await api.zip(ids));
    const anchor = Object.assign(document.createElement("a"), { href: url, download: "unclip.zip" });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  });
  return (
    <div class="selection" role="toolbar" aria-label={words.selected(ids.length)}>
      <strong>{words.selected(ids.length)}</strong>
      <Button small look="quiet" icon="download" onClick={zip}>{words.zip}</Button>
      <Collect pictures={chosen} label={words.addTo} />
      <Button
        small look="quiet" icon="star" label={words.star}
        onClick={() => attempt(async () => {
          await Promise.all(ids.map((id) => api.change(id, { starred: true })));
          libraryChanged.value += 1;
        })}
      />
      {here.collection && (
        <Button
          small look="quiet" icon="minus" label={words.removeFrom}
          onClick={() => attempt(async () => {
            await Promise.all(ids.map((id) => api.collect(here.collection, id, false)));
            libraryChanged.value += 1;
            onClear();
            toast(text.common.done, {
              undo: () => attempt(async () => {
                await Promise.all(ids.map((id) => api.collect(here.collection, id, true)));
                libraryChanged.value += 1;
              }),
            });
          })}
        />
      )}
      {here.deleted
        ? <Button small look="quiet" icon="restore" onClick={async () => {
            await restorePictures(ids);
            onClear();
          }}>{words.restore}</Button>
        : <Button small look="quiet" icon="trash" onClick={async () => {
            if (await removePictures(ids)) onClear();
          }}>{words.remove}</Button>}
      <Button small look="quiet" icon="close" label={words.clear} onClick={onClear} />
    </div>
  );
}

/** Moves the focus between the links of the grid as arrow keys say. */
function moveFocus(event: KeyboardEvent): boolean {
  const links = [...document.querySelectorAll<HTMLElement>(".library .grid a.tile")];
  const here = links.indexOf(document.activeElement as HTMLElement);
  if (!links.length) return false;
  if (here < 0) {
    links[0]!.focus();
    return true;
  }
  const key = event.key;
  let next = here;
  if (key === "ArrowLeft") next = here - 1;
  else if (key === "ArrowRight") next = here + 1;
  else {
    const from = links[here]!.getBoundingClientRect();
    const down = key === "ArrowDown";
    const rows = links.map((one, index) => ({ index, box: one.getBoundingClientRect() }))
      .filter(({ box }) => (down ? box.top > from.top + 2 : box.top < from.top - 2));
    const row = rows.reduce((best, { box }) => (down ? Math.min(best, box.top) : Math.max(best, box.top)), down ? Infinity : -Infinity);
    const near = rows.filter(({ box }) => Math.abs(box.top - row) < 2)
      .sort((a, b) => Math.abs(a.box.left - from.left) - Math.abs(b.box.left - from.left))[0];
    if (near) next = near.index;
  }
  links[Math.min(Math.max(next, 0), links.length - 1)]?.focus();
  return true;
}

export function Library() {
  const now = filter.value;
  const { pictures, total, more } = usePictures(now);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [selecting, setSelecting] = useState(false);
  const last = useRef<string | null>(null);
  const shown = pictures ?? [];
  const chosen = shown.filter((one) => selected.has(one.id));
  useEffect(() => setSelected(new Set()), [JSON.stringify(now)]);

  const select = (id: string, on: boolean, range = false) => {
    const next = new Set(selected);
    const ids = shown.map((one) => one.id);
    const [from, to] = [ids.indexOf(last.current ?? id), ids.indexOf(id)].sort((a, b) => a - b) as [number, number];
    for (const one of range && from >= 0 ? ids.slice(from, to + 1) : [id]) {
      if (on) next.add(one);
      else next.delete(one);
    }
    last.current = id;
    setSelected(next);
  };
  const focused = () => (document.activeElement as HTMLElement | null)?.dataset["picture"];
  const toggleFocused = () => {
    const id = focused();
    if (!id) return false;
    select(id, !selected.has(id));
    return true;
  };
  useKeys({
    arrowleft: moveFocus, arrowright: moveFocus, arrowup: (event) => focused() !== undefined && moveFocus(event),
    arrowdown: (event) => focused() !== undefined && moveFocus(event),
    x: toggleFocused,
    "ctrl+a": () => setSelected(new Set(shown.map((one) => one.id))),
    escape: () => (selected.size ? setSelected(new Set()) : false),
    delete: async () => {
      const ids = chosen.length ? chosen.map((one) => one.id) : [focused()].filter((id): id is string => Boolean(id));
      if (await removePictures(ids)) setSelected(new Set());
    },
  });
  const filtered = JSON.stringify(now) !== JSON.stringify(NO_FILTER);
  return (
    <div class={`place library ${selected.size || selecting ? "selecting" : ""}`}>
      <header class="library-head">
        <h1>{words.heading}</h1>
        {total !== null && <span class="muted">{words.total(total)}</span>}
        <div class="actions">
          <Button look="quiet" icon="check" pressed={selecting || selected.size > 0} onClick={() => {
            setSelected(new Set());
            setSelecting(!(selecting || selected.size));
          }}>{words.select}</Button>
          <ChooseFile onFile={offer}>{words.drop}</ChooseFile>
        </div>
      </header>
      <Filters />
      {pictures && !shown.length && (
        <p class="nothing">{now.deleted && !now.query ? words.binEmpty : filtered ? words.nothing : words.empty}</p>
      )}
      {byDay(shown).map(([day, ofDay]) => (
        <section key={day} aria-label={day}>
          <h2>{day}</h2>
          <ul class="grid">
            {ofDay.map((one) => (
              <li key={one.id} class={selected.has(one.id) ? "selected" : ""}>
                <a class="tile" href={link("image", one.id)} data-picture={one.id}><Thumbnail picture={one} side={320} /></a>
                <label class="pick">
                  <input
                    type="checkbox" checked={selected.has(one.id)} aria-label={words.selectOf(altOf(one))}
                    onClick={(event) => select(one.id, event.currentTarget.checked, event.shiftKey)}
                  />
                </label>
                {one.starred && <span class="starred" role="img" aria-label={words.starred}><Icon name="star" filled /></span>}
              </li>
            ))}
          </ul>
        </section>
      ))}
      {more && <div class="more"><Button onClick={more}>{text.common.more}</Button></div>}
      {shown.length > 0 && <p class="muted keys-hint">{words.keys}</p>}
      {chosen.length > 0 && <SelectionBar chosen={chosen} onClear={() => setSelected(new Set())} />}
    </div>
  );
}
