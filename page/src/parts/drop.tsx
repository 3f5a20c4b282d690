// Pictures from outside: dropped on the page, pasted, or chosen. A picture made here brings its request along.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api.ts";
import { newCanvas } from "../editor/canvases.ts";
import { go } from "../route.ts";
import { draftOf, draft, write } from "../settings.ts";
import { attempt, config, toast } from "../store.ts";
import { text } from "../text.ts";
import type { RequestBody, Upload } from "../types.ts";
import { Button } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";

interface Dropped {
  file: Blob;
  name: string;
  url: string;
}

const dropped = signal<Dropped | null>(null);

/** Addresses in memory of pictures that this tab uploaded, to show them. */
export const uploaded = signal<Readonly<Record<string, string>>>({});

/** Whether the file may be sent; else says why not. */
export function acceptable(file: Blob): boolean {
  const most = config.value?.limits.max_upload ?? Infinity;
  if (!/^image\/(png|jpeg|webp)$/.test(file.type)) toast(text.errors.notPicture, { bad: true });
  else if (file.size > most) toast(text.errors.tooLarge(Math.round(most / (1 << 20))), { bad: true });
  else return true;
  return false;
}

export function offer(file: Blob | null | undefined): void {
  if (!file || !acceptable(file)) return;
  dropped.value = { file, name: file instanceof File ? file.name : "", url: URL.createObjectURL(file) };
}

export async function send(file: Blob): Promise<Upload | undefined> {
  const upload = await attempt(() => api.upload(file));
  if (upload) uploaded.value = { ...uploaded.value, [upload.id]: URL.createObjectURL(file) };
  return upload;
}

/** Button that opens the system's file chooser. */
export function ChooseFile({ children, onFile, look = "quiet" }: {
  children: string;
  onFile: (file: File) => unknown;
  look?: "plain" | "quiet" | "primary";
}) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <Button icon="image" look={look} onClick={() => input.current?.click()}>{children}</Button>
      <input
        ref={input} type="file" accept="image/png,image/jpeg,image/webp" hidden tabIndex={-1} aria-hidden="true"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) onFile(file);
        }}
      />
    </>
  );
}

/** Listens to drops and pastes anywhere on the page. */
export function DropTarget() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const has = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => event.relatedTarget === null && setOver(false);
    const drop = (event: DragEvent) => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(false);
      offer(event.dataTransfer?.files[0]);
    };
    const paste = (event: ClipboardEvent) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (file) offer(file);
    };
    const pairs = { dragenter: enter, dragover: enter, dragleave: leave, drop, paste } as Record<string, any>;
    for (const [name, react] of Object.entries(pairs)) addEventListener(name, react);
    return () => {
      for (const [name, react] of Object.entries(pairs)) removeEventListener(name, react);
    };
  }, []);
  return (
    <>
      {over && <div class="drop-veil" aria-hidden="true"><p>{text.library.dropping}</p></div>}
      {dropped.value && <Offer key={dropped.value.url} {...dropped.value} />}
    </>
  );
}

function Offer({ file, name, url }: Dropped) {
  const [found, setFound] = useState<{ request: RequestBody | null; source: string; warnings?: string[] } | null>(null);
  useEffect(() => void api.read(file).then(setFound, () => setFound({ request: null, source: "", warnings: [] })), [file]);
  const close = () => {
    dropped.value = null;
  };
  const refuse = () => {
    close();
    toast(text.errors.notPicture, { bad: true });
  };
  const begin = async (then: (upload: Upload) => unknown) => {
    const upload = await send(file);
    if (!upload) return;
    close();
    then(upload);
  };
  const request = found?.request;
  const words = request ? draftOf(request).prompt : "";
  return (
    <Dialog title={text.library.dropTitle} onClose={close}>
      <div class="offer">
        <img src={url} alt={name} onError={refuse} />
        <div>
          {!found && <p>{text.common.loading}</p>}
          {found && !request && <p>{text.library.dropNone}</p>}
          {request && (
            <>
              <p class="quote">{words || text.kindOf(request.kind)}</p>
              <p class="muted">{text.library.dropFrom(found.source)}</p>
            </>
          )}
          {found?.warnings?.map((warning) => <p class="note" key={warning}>{warning}</p>)}
        </div>
      </div>
      <footer class="actions">
        {request && (
          <Button
            look="primary" icon="restore"
            onClick={() => {
              draft.value = draftOf(request);
              close();
              go("create");
            }}
          >
            {text.library.useRequest}
          </Button>
        )}
        <Button
          icon="vary"
          onClick={() => begin((upload) => {
            write({ start: { id: upload.id, of: "upload", name } });
            go("create");
          })}
        >
          {text.library.usePicture}
        </Button>
        <Button
          icon="brush"
          onClick={() => begin(async (upload) => {
            const canvas = await attempt(() =>
              newCanvas({ upload: upload.id, width: upload.width, height: upload.height, name, prompt: words }));
            if (canvas) go("editor", canvas);
          })}
        >
          {text.library.useEditor}
        </Button>
      </footer>
    </Dialog>
  );
}
