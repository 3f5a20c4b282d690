// The editor's stage: the picture with its marks, and the frame of outpainting. Mouse, pen and touch.
import type { TargetedPointerEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { text } from "../text.ts";
import { fileOf } from "../api.ts";
import { coverOf, type Doc, type Frame, type Mode, moved, sidesOf, slid, withSide } from "./document.ts";
import { extended, type LassoMark, type Mark, paint, rectangle, type Stroke } from "./marks.ts";
import { useView, zoomed } from "./view.ts";

export type Tool = "brush" | "eraser" | "lasso" | "box" | "pan";
type Pointer = TargetedPointerEvent<HTMLElement>;

interface StageProps {
  doc: Doc;
  mode: Mode;
  tool: Tool;
  size: number;
  source: string;
  alt: string;
  hideMarks: boolean;
  onMark: (mark: Mark) => void;
  onFrame: (frame: Frame) => void;
  viewRef: (view: { zoom: (factor: number) => void; reset: () => void }) => void;
}

/** Distance between points of an outline: about that of a brush of ten pixels. */
const LASSO = 10;
const HANDLES = [
  ["left", "top"], ["top"], ["right", "top"], ["left"], ["right"], ["left", "bottom"], ["bottom"], ["right", "bottom"],
] as const;

type Drag =
  | { what: "stroke"; mark: Stroke | LassoMark }
  | { what: "box"; x: number; y: number; toX: number; toY: number }
  | { what: "pan" }
  | { what: "frame"; start: Doc; x: number; y: number }
  | { what: "handle"; start: Doc; sides: readonly (keyof ReturnType<typeof sidesOf>)[] }
  | { what: "pinch" };

export function Stage(props: StageProps) {
  const { doc, mode, tool, size } = props;
  const added = sidesOf(doc);
  const cover = coverOf(doc);
  const bounds = mode === "repaint"
    ? [0, 0, doc.width, doc.height] as const
    : [Math.min(cover.x, doc.frame.x), Math.min(cover.y, doc.frame.y),
      Math.max(cover.x + cover.width, doc.frame.x + doc.frame.width),
      Math.max(cover.y + cover.height, doc.frame.y + doc.frame.height)] as const;
  const [drag, setDrag] = useState<Drag | null>(null);
  const [frame, setFrame] = useState<Frame | null>(null);
  const [cursor, setCursor] = useState<{ x: number; y: number } | null>(null);
  const [space, setSpace] = useState(false);
  // While the frame is dragged, the view stays.
  const settled = useRef(bounds);
  if (!drag) settled.current = bounds;
  const { element, view, move, zoom, reset } = useView(settled.current);
  const canvas = useRef<HTMLCanvasElement>(null);
  const pointers = useRef(new Map<number, { x: number; y: number }>());
  props.viewRef({ zoom, reset });

  const here = (event: { clientX: number; clientY: number }) => {
    const box = element.current!.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return { x, y, px: (x - view.x) / view.scale, py: (y - view.y) / view.scale };
  };

  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    context.clearRect(0, 0, doc.width, doc.height);
    const marks: Mark[] = [...doc.marks];
    if (drag?.what === "stroke") marks.push(drag.mark);
    if (drag?.what === "box") {
      const box = rectangle(drag.x, drag.y, drag.toX, drag.toY, doc.width, doc.height);
      if (box) marks.push({ tool: "box", box });
    }
    paint(context, marks, getComputedStyle(canvas.current!).color, doc.margin);
  }, [doc, drag, mode]);

  useEffect(() => {
    const stage = element.current;
    if (!stage) return;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      const { x, y } = here(event);
      move((now) => zoomed(now, Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), x, y));
    };
    stage.addEventListener("wheel", wheel, { passive: false });
    return () => stage.removeEventListener("wheel", wheel);
  });
  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      if (event.key === " " && event.target === document.body) {
        event.preventDefault();
        setSpace(event.type === "keydown");
      }
    };
    addEventListener("keydown", key);
    addEventListener("keyup", key);
    return () => {
      removeEventListener("keydown", key);
      removeEventListener("keyup", key);
    };
  }, []);

  const down = (event: Pointer, begin?: Drag) => {
    if (event.button > 1) return;
    event.stopPropagation();
    const { px, py } = here(event);
    pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    element.current!.setPointerCapture(event.pointerId);
    if (pointers.current.size > 1) return setDrag({ what: "pinch" });
    if (begin) return setDrag(begin);
    if (event.button === 1 || space || tool === "pan" || mode !== "repaint") return setDrag({ what: "pan" });
    if (tool === "box") setDrag({ what: "box", x: px, y: py, toX: px, toY: py });
    else if (tool === "lasso") setDrag({ what: "stroke", mark: { tool, points: extended([], px, py, LASSO) } });
    else setDrag({ what: "stroke", mark: { tool, size, points: extended([], px, py, size) } });
  };

  const shift = (event: Pointer) => {
    const { px, py } = here(event);
    setCursor(event.pointerType === "touch" ? null : { x: px, y: py });
    const last = pointers.current.get(event.pointerId);
    if (!last || !drag) return;
    if (drag.what === "pinch") {
      const [a, b] = [...pointers.current.entries()];
      pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const other = a && b ? (a[0] === event.pointerId ? b[1] : a[1]) : null;
      if (!other) return;
      const before = Math.hypot(last.x - other.x, last.y - other.y);
      const now = Math.hypot(event.clientX - other.x, event.clientY - other.y);
      const middle = here({ clientX: (event.clientX + other.x) / 2, clientY: (event.clientY + other.y) / 2 });
      move((v) => {
        const next = zoomed(v, before > 0 ? now / before : 1, middle.x, middle.y);
        return { ...next, x: next.x + (event.clientX - last.x) / 2, y: next.y + (event.clientY - last.y) / 2 };
      });
      return;
    }
    pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (drag.what === "pan") move((v) => ({ ...v, x: v.x + event.clientX - last.x, y: v.y + event.clientY - last.y }));
    else if (drag.what === "box") setDrag({ ...drag, toX: px, toY: py });
    else if (drag.what === "frame") setFrame((mode === "frames" ? slid : moved)(drag.start, px - drag.x, py - drag.y));
    else if (drag.what === "handle") {
      let next = drag.start;
      for (const side of drag.sides) {
        const beyond = { left: -px, top: -py, right: px - doc.width, bottom: py - doc.height }[side];
        next = { ...next, frame: withSide(next, side, Math.round(beyond)) };
      }
      setFrame(next.frame);
    } else {
      let { points } = drag.mark;
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const at = here(one);
        points = extended(points, at.px, at.py, drag.mark.tool === "lasso" ? LASSO : size);
      }
      if (points !== drag.mark.points) setDrag({ what: "stroke", mark: { ...drag.mark, points } });
    }
  };

  const up = (event: Pointer) => {
    pointers.current.delete(event.pointerId);
    if (!drag) return;
    if (event.type === "pointerup") {
      // An outline of less than three points has no inside.
      if (drag.what === "stroke" && (drag.mark.tool !== "lasso" || drag.mark.points.length >= 6)) props.onMark(drag.mark);
      if (drag.what === "box") {
        const box = rectangle(drag.x, drag.y, drag.toX, drag.toY, doc.width, doc.height);
        if (box) props.onMark({ tool: "box", box });
      }
      if (frame) props.onFrame(frame);
    }
    if (drag.what === "pinch" && pointers.current.size) return;
    setDrag(null);
    setFrame(null);
  };

  const shown = frame ?? doc.frame;
  const nudge = (event: KeyboardEvent) => {
    const step = event.shiftKey ? 64 : 8;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    props.onFrame((mode === "frames" ? slid : moved)(doc, by[0]!, by[1]!));
  };
  const grown = Object.values(frame ? sidesOf({ ...doc, frame }) : added).some(Boolean);
  return (
    <div
      ref={element} class={`stage ${mode} ${space ? "pan" : tool}`} onPointerDown={(event) => down(event)} onPointerMove={shift}
      onPointerUp={up} onPointerCancel={up} onPointerLeave={() => setCursor(null)}
    >
      <div class="stage-inner" style={{ transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`, width: `${doc.width}px`, height: `${doc.height}px` }}>
        <img src={props.source} alt={props.alt} width={doc.width} height={doc.height} draggable={false} />
        {(doc.patches ?? []).map((one, index) => (
          <img
            key={`${one.id} ${index}`} class="patch" src={fileOf(one.id)} alt="" width={one.width} height={one.height} draggable={false}
            style={{ left: `${one.x}px`, top: `${one.y}px`, width: `${one.width}px`, height: `${one.height}px` }}
          />
        ))}
        {mode === "repaint" && (
          <canvas ref={canvas} width={doc.width} height={doc.height} class={props.hideMarks ? "gone" : ""} role="img" aria-label={text.editor.canvas} />
        )}
        {mode === "repaint" && cursor && !space && (tool === "brush" || tool === "eraser") && (
          <div
            class="cursor" aria-hidden="true"
            style={{ left: `${cursor.x - size / 2}px`, top: `${cursor.y - size / 2}px`, width: `${size}px`, height: `${size}px`, borderWidth: `${1.5 / view.scale}px` }}
          />
        )}
      </div>
      {mode !== "repaint" && (
        <div
          class={`frame ${grown || mode === "frames" ? "grown" : ""}`} tabIndex={0} role="group" aria-label={text.editor.frame} onKeyDown={nudge}
          onPointerDown={(event) => {
            const { px, py } = here(event);
            down(event, { what: "frame", start: doc, x: px, y: py });
          }}
          style={{
            left: `${view.x + shown.x * view.scale}px`, top: `${view.y + shown.y * view.scale}px`,
            width: `${shown.width * view.scale}px`, height: `${shown.height * view.scale}px`,
          }}
        >
          {mode === "extend" && HANDLES.map((sides) => (
            <span key={sides.join()} class={`handle ${sides.join(" ")}`} onPointerDown={(event) => down(event, { what: "handle", start: doc, sides })} />
          ))}
        </div>
      )}
    </div>
  );
}
