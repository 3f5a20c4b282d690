import { render } from "preact";
import { useEffect } from "preact/hooks";
import { Create } from "./places/create.tsx";
import { Editor } from "./places/editor.tsx";
import { ImagePlace } from "./places/image.tsx";
import { Library } from "./places/library.tsx";
import { QueuePlace } from "./places/queue.tsx";
import { route } from "./route.ts";
import { Shell } from "./shell.tsx";
import { start } from "./store.ts";
import { text } from "./text.ts";

function Place() {
  const { place, rest } = route.value;
  const [id] = rest;
  const name = { image: text.nav.image, editor: text.nav.editor, library: text.nav.library, queue: text.nav.queue }[place];
  useEffect(() => void (document.title = text.title(name ?? text.nav.create)), [name]);
  if (place === "image" && id) return <ImagePlace key={id} id={id} view={rest[1]} second={rest[2]} />;
  if (place === "editor") return <Editor key={id ?? ""} id={id} />;
  if (place === "library") return <Library />;
  if (place === "queue") return <QueuePlace />;
  return <Create />;
}

document.documentElement.lang = text.language;
render(<Shell><Place /></Shell>, document.getElementById("page")!);
start();
