// Chooses a picture: one of the library, or a file.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { attempt } from "../store.ts";
import { text } from "../text.ts";
import type { Picture } from "../types.ts";
import { Button } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";
import { acceptable, ChooseFile, send } from "./drop.tsx";
import { altOf, Thumbnail } from "./tile.tsx";

export interface Chosen {
  id: string;
  of: "picture" | "upload";
  width: number;
  height: number;
  name: string;
}

interface PickerProps {
  onChoose: (chosen: Chosen) => unknown;
  onClose: () => void;
}

export function Picker({ onChoose, onClose }: PickerProps) {
  const [pictures, setPictures] = useState<Picture[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const more = (cursor: string | null) => attempt(async () => {
    const page = await api.pictures({ limit: 24, cursor });
    setPictures((before) => [...(cursor ? before ?? [] : []), ...page.items]);
    setNext(page.next);
  });
  useEffect(() => void more(null), []);
  const choose = (chosen: Chosen) => {
    onClose();
    onChoose(chosen);
  };
  return (
    <Dialog title={text.picker.title} wide onClose={onClose}>
      <ChooseFile
        look="plain"
        onFile={async (file) => {
          if (!acceptable(file)) return;
          const upload = await send(file);
          if (upload) choose({ id: upload.id, of: "upload", width: upload.width, height: upload.height, name: file.name });
        }}
      >
        {text.picker.upload}
      </ChooseFile>
      <h3>{text.picker.fromLibrary}</h3>
      {pictures && !pictures.length && <p class="muted">{text.picker.none}</p>}
      <ul class="picker">
        {pictures?.map((one) => (
          <li key={one.id}>
            <button
              type="button" class="tile"
              onClick={() => choose({ id: one.id, of: "picture", width: one.width, height: one.height, name: altOf(one) })}
            >
              <Thumbnail picture={one} side={256} />
            </button>
          </li>
        ))}
      </ul>
      {next && <Button onClick={() => more(next)}>{text.common.more}</Button>}
    </Dialog>
  );
}
