// Editor: a part of a picture is repainted, or it goes on beyond its sides. Every change is saved on the server.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, fileOf, thumbnailOf } from "../api.ts";
import { newCanvas, readState, saveCanvas } from "../editor/canvases.ts";
import { changed, type Doc, type History, redone, type Saved, sidesOf, undone } from "../editor/document.ts";
import { type Mark, maskFile, onlyBox } from "../editor/marks.ts";
import { Panel } from "../editor/panel.tsx";
import { Stage, type Tool } from "../editor/stage.tsx";
import { Toolbar } from "../editor/toolbar.tsx";
import { useKeys } from "../keys.ts";
import { Button } from "../parts/controls.tsx";
import { uploaded } from "../parts/drop.tsx";
import { Icon } from "../parts/icons.tsx";
import { Picker } from "../parts/picker.tsx";
import { momentOf } from "../parts/provenance.tsx";
import { go, link } from "../route.ts";
import { settings } from "../settings.ts";
import { announce, attempt, config, jobs, model, putJob, refusal, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Canvas, Picture } from "../types.ts";

const words = text.editor;
const SAVE_AFTER = 600;

export function Editor({ id }: { id?: string }) {
  const [canvas, setCanvas] = useState<Canvas | null | undefined>(undefined);
  useEffect(() => {
    if (id) api.canvas(id).then(setCanvas, () => setCanvas(null));
  }, [id]);
  if (!id) return <Canvases />;
  if (canvas === undefined) return <div class="place editor" aria-busy="true" />;
  const state = canvas && readState(canvas);
  if (!canvas || !state) return <div class="place"><h1>{words.heading}</h1><p>{text.errors.notFound}</p></div>;
  return <Opened id={id} name={canvas.name} saved={state} />;
}

function Canvases() {
  const [found, setFound] = useState<Canvas[] | null>(null);
  const [choosing, setChoosing] = useState(false);
  const read = () => attempt(async () => setFound(await api.canvases()));
  useEffect(() => void read(), []);
  return (
    <div class="place canvases">
      <h1>{words.heading}</h1>
      <p class="lead">{words.lead}</p>
      <Button look="primary" icon="plus" onClick={() => setChoosing(true)}>{words.open}</Button>
      {found && found.length > 0 && (
        <section aria-label={words.recent}>
          <h2>{words.recent}</h2>
          <ul class="canvas-list">
            {found.map((one) => {
              const base = one.base ?? null;
              return (
                <li key={one.id}>
                  <a href={link("editor", one.id)} class="canvas-card">
                    {base ? <img src={thumbnailOf(base, 256)} alt="" loading="lazy" /> : <span class="blank"><Icon name="image" /></span>}
                    <span>{words.canvasOf(one.name || words.untitled, one.width, one.height)}</span>
                    {one.updated && <span class="muted">{momentOf(one.updated)}</span>}
                  </a>
                  <Button
                    look="quiet" small icon="trash" label={`${text.common.remove}: ${one.name || words.untitled}`}
                    onClick={() => attempt(async () => {
                      const { name, width, height, base, state } = await api.canvas(one.id);
                      await api.removeCanvas(one.id);
                      await read();
                      toast(text.common.done, {
                        undo: async () => {
                          await attempt(() => api.saveCanvas(one.id, { name, width, height, base, state }));
                          await read();
                        },
                      });
                    })}
                  />
                </li>
              );
            })}
          </ul>
        </section>
      )}
      {choosing && (
        <Picker
          onClose={() => setChoosing(false)}
          onChoose={async (chosen) => {
            const made = await attempt(() => newCanvas({
              [chosen.of]: chosen.id, width: chosen.width, height: chosen.height, name: chosen.name, prompt: "",
            }));
            if (made) go("editor", made);
          }}
        />
      )}
    </div>
  );
}

/** Saves after each change, a moment later; what is still open is saved when the page is left. */
function useAutosave(id: string, name: string, state: Saved): "saved" | "saving" | "unsaved" {
  const [status, setStatus] = useState<"saved" | "saving" | "unsaved">("saved");
  const current = useRef({ name, state, open: false });
  const first = useRef(true);
  const key = JSON.stringify([name, state]);
  current.current.name = name;
  current.current.state = state;
  const save = async () => {
    const { name: title, state: now } = current.current;
    current.current.open = false;
    setStatus("saving");
    try {
      await saveCanvas(id, title, now);
      setStatus(current.current.open ? "unsaved" : "saved");
    } catch {
      // The server is away: the banner says so, and the canvas is saved as soon as it answers.
      current.current.open = true;
      setStatus("unsaved");
      setTimeout(() => current.current.open && void save(), 2000);
    }
  };
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    current.current.open = true;
    setStatus("unsaved");
    const timer = setTimeout(save, SAVE_AFTER);
    return () => clearTimeout(timer);
  }, [key]);
  useEffect(() => {
    const leave = () => {
      if (current.current.open) void save();
    };
    addEventListener("pagehide", leave);
    document.addEventListener("visibilitychange", leave);
    return () => {
      removeEventListener("pagehide", leave);
      document.removeEventListener("visibilitychange", leave);
      leave();
    };
  }, []);
  return status;
}

function Opened({ id, name: firstName, saved }: { id: string; name: string; saved: Saved }) {
  const [history, setHistory] = useState<History>({ past: saved.past, now: saved.now, future: saved.future });
  const [mode, setMode] = useState(saved.mode);
  const [prompt, setPrompt] = useState(saved.prompt);
  const [name, setName] = useState(firstName);
  const [jobId, setJobId] = useState(saved.job);
  const [tool, setTool] = useState<Tool>("brush");
  const [size, setSize] = useState(Math.round(Math.max(saved.now.width, saved.now.height) / 8));
  const [hideMarks, setHideMarks] = useState(false);
  const view = useRef({ zoom: (_: number) => {}, reset: () => {} });
  const doc = history.now;
  const status = useAutosave(id, name, { format: 1, mode, prompt, job: jobId, ...history });
  const job = jobId ? jobs.value.get(jobId) : undefined;
  useEffect(() => {
    if (jobId && !jobs.value.has(jobId)) api.job(jobId).then(putJob, () => setJobId(null));
  }, [jobId]);

  const put = (change: Partial<Doc>) => setHistory((now) => changed(now, { ...now.now, ...change }));
  const mark = (one: Mark) => put({ marks: [...doc.marks, one] });
  const undo = () => setHistory(undone);
  const redo = () => setHistory(redone);
  const sides = sidesOf(doc);
  const kind = mode === "repaint" ? "edit" : "outpaint";
  const side = Math.max(doc.width + sides.left + sides.right, doc.height + sides.top + sides.bottom);
  const most = config.value?.limits.max_side ?? Infinity;
  const problem = refusal(kind)
    ?? (mode === "repaint"
      ? !doc.marks.length ? words.nothingMarked : !prompt.trim() ? words.emptyPrompt : null
      : !Object.values(sides).some(Boolean) ? words.nothingAdded : side > most ? words.tooLarge(most) : null);

  const draw = async () => {
    if (problem) return announce(problem);
    const made = await attempt(async () => {
      const sources: Record<string, string> = { picture: doc.base.id };
      const request: Record<string, unknown> = prompt.trim() ? { prompt: prompt.trim() } : {};
      if (mode === "extend") Object.assign(request, sides);
      else {
        request["n"] = settings.value.n;
        const box = onlyBox(doc.marks);
        if (box) request["box"] = box;
        else sources["mask"] = (await api.upload(await maskFile(doc.marks, doc.width, doc.height))).id;
      }
      return api.create({ request: { kind, ...request }, model: model.value?.name, sources, previews: settings.value.previews });
    });
    if (!made) return;
    putJob(made);
    setJobId(made.id);
  };
  const accept = (picture: Picture) => {
    setHistory((now) => changed(now, {
      base: { id: picture.id, of: "picture" }, width: picture.width, height: picture.height, marks: [],
      frame: { x: 0, y: 0, width: picture.width, height: picture.height },
    }));
    setJobId(null);
    view.current.reset();
    announce(words.accepted);
  };
  const choose = (one: Tool) => () => {
    setTool(one);
    setMode("repaint");
  };
  const resize = (factor: number) => () =>
    setSize((now) => Math.min(Math.max(Math.round(now * factor) + Math.sign(factor - 1), 1), Math.max(doc.width, doc.height)));
  useKeys({
    b: choose("brush"), e: choose("eraser"), x: choose("box"), h: choose("pan"), "[": resize(0.8), "]": resize(1.25),
    "ctrl+z": undo, "ctrl+shift+z": redo, "ctrl+y": redo, "ctrl+enter": draw,
    "+": () => view.current.zoom(1.25), "=": () => view.current.zoom(1.25), "-": () => view.current.zoom(0.8),
    "0": () => view.current.reset(), escape: () => go("editor"),
  });
  const source = doc.base.of === "picture" ? fileOf(doc.base.id) : uploaded.value[doc.base.id] ?? uploadFile(doc.base.id);
  return (
    <div class="place editor">
      <header class="editor-head">
        <a class="button quiet icon-only" href={link("editor")} aria-label={words.close} title={words.close}><Icon name="left" /></a>
        <h1 class="hidden">{words.heading}</h1>
        <input
          class="canvas-name" type="text" aria-label={words.name} placeholder={words.untitled} value={name} maxLength={100}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <span class="muted save-state" role="status">{words[status]}</span>
      </header>
      <Toolbar
        mode={mode} tool={tool} size={size} most={Math.max(doc.width, doc.height)} canUndo={history.past.length > 0}
        canRedo={history.future.length > 0} canClear={doc.marks.length > 0} onMode={setMode} onTool={setTool} onSize={setSize}
        onUndo={undo} onRedo={redo} onClear={() => put({ marks: [] })} onZoom={(factor) => view.current.zoom(factor)}
        onFit={() => view.current.reset()} onHide={setHideMarks}
      />
      <Stage
        doc={doc} mode={mode} tool={tool} size={size} source={source} alt={name || words.untitled} hideMarks={hideMarks}
        onMark={mark} onFrame={(frame) => put({ frame })} viewRef={(made) => (view.current = made)}
      />
      <Panel
        doc={doc} mode={mode} prompt={prompt} job={job} problem={problem} onPrompt={setPrompt} onMark={mark}
        onFrame={(frame) => put({ frame })} onDraw={draw} onAccept={accept} onDiscard={() => setJobId(null)}
      />
    </div>
  );
}

const uploadFile = (id: string): string => new URL(`api/uploads/${id}/file`, document.baseURI).href;
