// Puts pictures into collections.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { attempt, libraryChanged, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Collection, Picture } from "../types.ts";
import { Button, Field } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";

export const collections = signal<readonly Collection[]>([]);
export const readCollections = () => attempt(async () => void (collections.value = await api.collections()));

export function Collect({ pictures, label = text.image.collections }: { pictures: readonly Picture[]; label?: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button look="quiet" icon="folder" label={label} onClick={() => setOpen(true)} />
      {open && <CollectDialog pictures={pictures} onClose={() => setOpen(false)} />}
    </>
  );
}

function CollectDialog({ pictures, onClose }: { pictures: readonly Picture[]; onClose: () => void }) {
  const [name, setName] = useState("");
  const [inside, setInside] = useState<Readonly<Record<string, boolean>>>({});
  useEffect(() => void readCollections(), []);
  const holds = (collection: Collection): boolean =>
    inside[collection.id] ?? pictures.every((one) => one.collections.includes(collection.id));
  const put = (collection: Collection, into: boolean) => attempt(async () => {
    await Promise.all(pictures.map((one) => api.collect(collection.id, one.id, into)));
    setInside({ ...inside, [collection.id]: into });
    libraryChanged.value += 1;
    if (into) toast(text.library.collected(pictures.length, collection.name));
  });
  return (
    <Dialog title={text.image.collections} onClose={onClose}>
      <ul class="checklist">
        {collections.value.map((one) => (
          <li key={one.id}>
            <label>
              <input type="checkbox" checked={holds(one)} onChange={(event) => put(one, event.currentTarget.checked)} />
              {one.name}
            </label>
          </li>
        ))}
      </ul>
      {!collections.value.length && <p class="muted">{text.image.noCollections}</p>}
      <form
        class="new-collection"
        onSubmit={(event) => {
          event.preventDefault();
          if (!name.trim()) return;
          void attempt(async () => {
            const made = await api.newCollection(name.trim());
            setName("");
            await readCollections();
            await put(made, true);
          });
        }}
      >
        <Field label={text.library.collectionName} wide>
          {(id) => <input id={id} type="text" maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Button type="submit" icon="plus" disabled={!name.trim()}>{text.library.newCollection}</Button>
      </form>
    </Dialog>
  );
}
