// Editor: a part of a picture is repainted, or it goes on beyond its sides. Every change is saved on the server.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, fileOf, thumbnailOf } from "../api.ts";
import { first } from "../brief.ts";
import { useAutosave } from "../editor/autosave.ts";
import { freshId, newCanvas, readState, saveCanvas } from "../editor/canvases.ts";
import {
  blank, changed, type Doc, type History, type Mode, patched, piecesOf, redone, type Saved, sidesOf, undone,
} from "../editor/document.ts";
import { emptyShare, type Mark, maskFile, onlyBox } from "../editor/marks.ts";
import { Panel } from "../editor/panel.tsx";
import { Stage, type Tool } from "../editor/stage.tsx";
import { Toolbar } from "../editor/toolbar.tsx";
import { useKeys } from "../keys.ts";
import { Button } from "../parts/controls.tsx";
import { send, uploaded } from "../parts/drop.tsx";
import { Icon } from "../parts/icons.tsx";
import { Picker } from "../parts/picker.tsx";
import { momentOf } from "../parts/provenance.tsx";
import { go, link } from "../route.ts";
import { settings } from "../settings.ts";
import { announce, attempt, config, jobs, model, putJob, refusal, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Canvas, Picture } from "../types.ts";

const words = text.editor;

export function Editor({ id }: { id?: string }) {
  const [canvas, setCanvas] = useState<Canvas | null | undefined>(undefined);
  const load = () => {
    if (id) api.canvas(id).then(setCanvas, () => setCanvas(null));
  };
  useEffect(load, [id]);
  if (!id) return <Canvases />;
  if (canvas === undefined) return <div class="place editor" aria-busy="true" />;
  const state = canvas && readState(canvas);
  if (!canvas || !state) return <div class="place"><h1>{words.heading}</h1><p>{text.errors.notFound}</p></div>;
  return <Opened key={`${canvas.id} ${canvas.updated}`} id={id} name={canvas.name} saved={state} updated={canvas.updated} onReload={load} />;
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

interface OpenedProps {
  id: string;
  name: string;
  saved: Saved;
  updated: string | undefined;
  onReload: () => void;
}

function Opened({ id, name: firstName, saved, updated, onReload }: OpenedProps) {
  const [history, setHistory] = useState<History>({ past: saved.past, now: saved.now, future: saved.future });
  const [mode, setMode] = useState(saved.mode);
  const [prompt, setPrompt] = useState(saved.prompt);
  const [name, setName] = useState(firstName);
  const [jobId, setJobId] = useState(saved.job);
  const [at, setAt] = useState(saved.at ?? null);
  const [tool, setTool] = useState<Tool>("brush");
  const [size, setSize] = useState(Math.round(Math.max(saved.now.width, saved.now.height) / 8));
  const [hideMarks, setHideMarks] = useState(false);
  const view = useRef({ zoom: (_: number) => {}, reset: () => {} });
  const doc = history.now;
  const state: Saved = { format: 1, mode, prompt, job: jobId, at, ...history };
  const saving = useAutosave(id, name, state, updated, onReload);
  const job = jobId ? jobs.value.get(jobId) : undefined;
  useEffect(() => {
    if (jobId && !jobs.value.has(jobId)) api.job(jobId).then(putJob, () => setJobId(null));
  }, [jobId]);

  const put = (change: Partial<Doc>) => setHistory((now) => changed(now, { ...now.now, ...change }));
  const mark = (one: Mark) => put({ marks: [...doc.marks, one] });
  const undo = () => setHistory(undone);
  const redo = () => setHistory(redone);
  const sides = sidesOf(doc);
  const kind = mode === "extend" ? "outpaint" : "edit";
  const side = Math.max(doc.width + sides.left + sides.right, doc.height + sides.top + sides.bottom);
  const most = config.value?.limits.max_side ?? Infinity;
  const problem = refusal(kind)
    ?? (mode === "repaint"
      ? !doc.marks.length ? words.nothingMarked : !prompt.trim() ? words.emptyPrompt : null
      : mode === "frames" ? prompt.trim() ? null : words.emptyPrompt
      : !Object.values(sides).some(Boolean) ? words.nothingAdded : side > most ? words.tooLarge(most) : null);

  const draw = async () => {
    if (problem) return announce(problem);
    if (mode === "frames") return drawFrame();
    const made = await attempt(async () => {
      const sources: Record<string, string> = { picture: doc.base.id };
      const request: Record<string, unknown> = prompt.trim() ? { prompt: prompt.trim() } : {};
      if (mode === "extend") Object.assign(request, sides);
      else {
        request["n"] = settings.value.n;
        const box = doc.margin ? null : onlyBox(doc.marks);
        if (box) request["box"] = box;
        else sources["mask"] = (await api.upload(await maskFile(doc.marks, doc.width, doc.height, doc.margin))).id;
      }
      return api.create({ request: { kind, ...request }, model: model.value?.name, sources, previews: settings.value.previews });
    });
    if (!made) return;
    putJob(made);
    setAt(null);
    setJobId(made.id);
  };
  const drawFrame = () => attempt(async () => {
    const { x, y, width, height } = doc.frame;
    const part = await api.compose(piecesOf(doc), [x, y, x + width, y + height]);
    const empty = await emptyShare(part);
    if (empty === 0 || empty === 1) return toast(empty ? words.frameEmpty : words.frameFull, { bad: true });
    const picture = (await api.upload(part)).id;
    const made = await api.create({
      request: { kind: "edit", prompt: prompt.trim(), n: settings.value.n }, model: model.value?.name, sources: { picture },
      previews: settings.value.previews,
    });
    putJob(made);
    setAt(doc.frame);
    setJobId(made.id);
  });
  /** One picture of all pieces, as the new base. */
  const join = () => attempt(async () => {
    const upload = await send(await api.compose(piecesOf(doc)));
    if (!upload) return false;
    const { width, height } = upload;
    setHistory((now) => changed(now, blank({ id: upload.id, of: "upload" }, width, height)));
    view.current.reset();
    return true;
  });
  const downloadWhole = () => attempt(async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await api.compose(piecesOf(doc)));
    link.download = `${first(name || words.untitled, 60).replace(/[^\p{L}\p{N}]+/gu, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  const change = async (next: Mode) => {
    // Marks and sides are those of one picture.
    if (next !== "frames" && doc.patches?.length && !(await join())) return;
    setMode(next);
  };
  const accept = (picture: Picture) => {
    if (at) {
      setHistory((now) => changed(now, patched(now.now, picture, at)));
      setJobId(null);
      announce(words.accepted);
      return;
    }
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
    void change("repaint");
  };
  const resize = (factor: number) => () =>
    setSize((now) => Math.min(Math.max(Math.round(now * factor) + Math.sign(factor - 1), 1), Math.max(doc.width, doc.height)));
  useKeys({
    b: choose("brush"), e: choose("eraser"), a: choose("lasso"), m: () => setHideMarks((now) => !now), x: choose("box"), h: choose("pan"), "[": resize(0.8), "]": resize(1.25),
    1: () => change("repaint"), 2: () => change("extend"), 3: () => change("frames"),
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
        <span class="muted save-state" role="status">{words[saving.status]}</span>
        {saving.problem && <span class="problem" role="alert">{saving.problem}</span>}
        {saving.conflict && (
          <div class="problem conflict" role="alert">
            <span>{words.elsewhere}</span>
            <Button small onClick={onReload}>{words.loadOther}</Button>
            <Button
              small
              onClick={() => attempt(async () => {
                const copy = freshId();
                await saveCanvas(copy, first(words.copyOf(name || words.untitled), 100), state);
                go("editor", copy);
              })}
            >
              {words.keepMine}
            </Button>
          </div>
        )}
      </header>
      <Toolbar
        mode={mode} tool={tool} size={size} most={Math.max(doc.width, doc.height)} canUndo={history.past.length > 0}
        canRedo={history.future.length > 0} canClear={doc.marks.length > 0} onMode={change} onTool={setTool} onSize={setSize}
        onUndo={undo} onRedo={redo} onClear={() => put({ marks: [] })} onZoom={(factor) => view.current.zoom(factor)}
        onFit={() => view.current.reset()} hidden={hideMarks} onHide={setHideMarks}
      />
      <Stage
        doc={doc} mode={mode} tool={tool} size={size} source={source} alt={name || words.untitled} hideMarks={hideMarks}
        onMark={mark} onFrame={(frame) => put({ frame })} viewRef={(made) => (view.current = made)}
      />
      <Panel
        doc={doc} mode={mode} prompt={prompt} job={job} problem={problem} onPrompt={setPrompt} onMark={mark}
        onFrame={(frame) => put({ frame })} onMargin={(margin) => put({ margin })} onJoin={join} onDownload={downloadWhole}
        onDraw={draw} onAccept={accept} onDiscard={() => setJobId(null)}
      />
    </div>
  );
}

const uploadFile = (id: string): string => new URL(`api/uploads/${id}/file`, document.baseURI).href;
