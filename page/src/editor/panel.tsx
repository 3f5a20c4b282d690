// Beside the stage: the words, the same marks in numbers, and what was drawn.
import { useMemo, useState } from "preact/hooks";
import { fileOf } from "../api.ts";
import { Button, Field, NumberField } from "../parts/controls.tsx";
import { JobActions, statusOf } from "../parts/jobcard.tsx";
import { altOf, JobTile } from "../parts/tile.tsx";
import { isActive } from "../store.ts";
import { text } from "../text.ts";
import type { Job, Picture } from "../types.ts";
import { coverOf, type Doc, type Frame, type Mode, SIDES, sidesOf, slid, withSide } from "./document.ts";
import { type Mark, markedShare, rectangle } from "./marks.ts";

const words = text.editor;

interface PanelProps {
  doc: Doc;
  mode: Mode;
  prompt: string;
  job: Job | undefined;
  problem: string | null;
  onPrompt: (prompt: string) => void;
  onMark: (mark: Mark) => void;
  onFrame: (frame: Frame) => void;
  onMargin: (margin: number) => void;
  onJoin: () => unknown;
  onDownload: () => unknown;
  onDraw: () => unknown;
  onAccept: (picture: Picture) => void;
  onDiscard: () => void;
}

function BoxInNumbers({ doc, onMark }: Pick<PanelProps, "doc" | "onMark">) {
  const [box, setBox] = useState<Record<string, number | null>>({});
  const { left = null, top = null, right = null, bottom = null } = box;
  const made = left === null || top === null || right === null || bottom === null
    ? null : rectangle(left, top, right, bottom, doc.width, doc.height);
  return (
    <details class="numbers">
      <summary>{words.boxHeading}</summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (made) onMark({ tool: "box", box: made });
        }}
      >
        {SIDES.map((side) => (
          <NumberField
            key={side} label={words[side]} value={box[side] ?? null} min={0}
            max={side === "left" || side === "right" ? doc.width : doc.height} onChange={(value) => setBox({ ...box, [side]: value })}
          />
        ))}
        <Button type="submit" icon="box" disabled={!made}>{words.addBox}</Button>
      </form>
    </details>
  );
}

function FrameInNumbers({ doc, onFrame }: Pick<PanelProps, "doc" | "onFrame">) {
  const sides = sidesOf(doc);
  return (
    <fieldset class="numbers">
      <legend>{words.frameHeading}</legend>
      <p class="muted">{words.frameHint}</p>
      <div class="four">
        {SIDES.map((side) => (
          <NumberField
            key={side} label={words[side]} value={sides[side]} min={0} max={4096} step={1}
            onChange={(value) => onFrame(withSide(doc, side, value ?? 0))}
          />
        ))}
      </div>
    </fieldset>
  );
}

/** The frame of the free canvas in numbers, and what can be done with the whole. */
function FreeCanvas({ doc, onFrame, onJoin, onDownload }: Pick<PanelProps, "doc" | "onFrame" | "onJoin" | "onDownload">) {
  const { frame } = doc;
  const cover = coverOf(doc);
  const patches = doc.patches?.length ?? 0;
  const put = (change: Partial<Frame>) => onFrame(slid({ ...doc, frame: { ...frame, ...change } }, 0, 0));
  return (
    <>
      <fieldset class="numbers">
        <legend>{words.framesHeading}</legend>
        <p class="muted">{words.framesHint}</p>
        <div class="four">
          <NumberField label={words.left} value={frame.x} min={-65536} max={65536} onChange={(x) => x !== null && put({ x })} />
          <NumberField label={words.top} value={frame.y} min={-65536} max={65536} onChange={(y) => y !== null && put({ y })} />
          <NumberField label={words.width} value={frame.width} min={8} max={4096} onChange={(width) => width && put({ width })} />
          <NumberField label={words.height} value={frame.height} min={8} max={4096} onChange={(height) => height && put({ height })} />
        </div>
      </fieldset>
      {patches > 0 && (
        <div class="whole">
          <p class="muted">{words.wholeSize(cover.width, cover.height)}</p>
          <Button icon="download" onClick={onDownload}>{words.downloadWhole}</Button>
          <Button icon="frame" onClick={onJoin}>{words.join}</Button>
        </div>
      )}
    </>
  );
}

function Results({ job, onAccept, onDiscard }: { job: Job; onAccept: (picture: Picture) => void; onDiscard: () => void }) {
  const { error } = job;
  return (
    <section class="results" aria-label={words.results} aria-busy={isActive(job)}>
      <header>
        <h2>{words.results}</h2>
        {job.state !== "done" && <p class="status">{statusOf(job)}</p>}
        <JobActions job={job} />
      </header>
      {error && <p class="problem" role="alert">{error}</p>}
      <ul>
        {Array.from({ length: Math.max(job.n, job.pictures.length) }, (_, index) => {
          const picture = job.pictures[index];
          return (
            <li key={index}>
              {picture ? (
                <button type="button" class="tile" aria-label={words.acceptOf(index + 1)} title={words.accept} onClick={() => onAccept(picture)}>
                  <img src={fileOf(picture.id)} alt={altOf(picture)} width={picture.width} height={picture.height} />
                </button>
              ) : <JobTile job={job} index={index} />}
            </li>
          );
        })}
      </ul>
      {!isActive(job) && <Button look="quiet" small icon="close" onClick={onDiscard}>{words.discard}</Button>}
    </section>
  );
}

export function Panel(props: PanelProps) {
  const { doc, mode, prompt, job, problem } = props;
  const share = useMemo(() => markedShare(doc.marks, doc.width, doc.height, doc.margin), [doc.marks, doc.margin]);
  const busy = job !== undefined && isActive(job);
  return (
    <aside class="panel">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          props.onDraw();
        }}
      >
        <Field label={mode === "extend" ? words.promptOptional : words.prompt} wide>
          {(id) => (
            <textarea
              id={id} data-words rows={2} value={prompt} maxLength={10_000}
              onInput={(event) => props.onPrompt(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
                event.preventDefault();
                event.stopPropagation();
                props.onDraw();
              }}
            />
          )}
        </Field>
        <Button look="primary" type="submit" icon="spark" why={problem} disabled={busy}>{busy ? words.drawing : words.draw}</Button>
        <p class="muted" role="status">
          {problem ?? (mode === "repaint" ? words.marked(Math.round(share * 100)) : "")}
        </p>
      </form>
      {mode === "repaint" && (
        <>
          <NumberField
            label={words.margin} hint={words.marginHint} value={doc.margin ?? 0} min={0} max={256}
            onChange={(margin) => props.onMargin(margin ?? 0)}
          />
          <BoxInNumbers doc={doc} onMark={props.onMark} />
        </>
      )}
      {mode === "extend" && <FrameInNumbers doc={doc} onFrame={props.onFrame} />}
      {mode === "frames" && <FreeCanvas doc={doc} onFrame={props.onFrame} onJoin={props.onJoin} onDownload={props.onDownload} />}
      {job && <Results job={job} onAccept={props.onAccept} onDiscard={props.onDiscard} />}
    </aside>
  );
}
