// What a canvas holds, its history, and its form in the server's database.
import type { Mark } from "./marks.ts";

export interface Base {
  id: string;
  of: "picture" | "upload";
}

/** Frame of outpainting, in pixels of the picture. What it has beyond the picture is drawn. */
export interface Frame {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A picture that a frame of the free canvas was filled with. */
export interface Patch extends Frame {
  id: string;
}

export type Mode = "repaint" | "extend" | "frames";

/** What undo brings back. */
export interface Doc {
  base: Base;
  width: number;
  height: number;
  marks: readonly Mark[];
  /** Pixels that the marks reach beyond what was painted. */
  margin?: number;
  /** Pictures beside and above the base, the latest uppermost. */
  patches?: readonly Patch[];
  frame: Frame;
}

export interface History {
  past: readonly Doc[];
  now: Doc;
  future: readonly Doc[];
}

export interface Sides {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export const SIDES = ["left", "top", "right", "bottom"] as const;

export const blank = (base: Base, width: number, height: number): Doc =>
  ({ base, width, height, marks: [], frame: { x: 0, y: 0, width, height } });

export const changed = ({ past, now }: History, doc: Doc): History => ({ past: [...past, now].slice(-200), now: doc, future: [] });

export function undone({ past, now, future }: History): History {
  const before = past.at(-1);
  return before ? { past: past.slice(0, -1), now: before, future: [now, ...future] } : { past, now, future };
}

export function redone({ past, now, future }: History): History {
  const [after, ...later] = future;
  return after ? { past: [...past, now], now: after, future: later } : { past, now, future };
}

/** Pixels to add at each side: what the frame has beyond the picture. */
export function sidesOf({ frame, width, height }: Pick<Doc, "frame" | "width" | "height">): Sides {
  return {
    left: Math.max(0, -frame.x),
    top: Math.max(0, -frame.y),
    right: Math.max(0, frame.x + frame.width - width),
    bottom: Math.max(0, frame.y + frame.height - height),
  };
}

/** The frame with one side `amount` pixels beyond the picture, and the other sides where they are. */
export function withSide(doc: Doc, side: keyof Sides, amount: number): Frame {
  const { x, y, width, height } = doc.frame;
  if (side === "left") return { ...doc.frame, x: -amount, width: Math.max(1, x + width + amount) };
  if (side === "top") return { ...doc.frame, y: -amount, height: Math.max(1, y + height + amount) };
  if (side === "right") return { ...doc.frame, width: Math.max(1, doc.width + amount - x) };
  return { ...doc.frame, height: Math.max(1, doc.height + amount - y) };
}

/** The frame moved, still touching the picture: beyond that it would not add to its sides but leave a gap. */
export function moved({ frame, width, height }: Doc, dx: number, dy: number): Frame {
  const within = (value: number, low: number, high: number) => Math.round(Math.min(Math.max(value, low), high));
  return { ...frame, x: within(frame.x + dx, -frame.width, width), y: within(frame.y + dy, -frame.height, height) };
}

/** What base and patches cover together. */
export function coverOf({ width, height, patches = [] }: Pick<Doc, "width" | "height" | "patches">): Frame {
  const right = Math.max(width, ...patches.map((one) => one.x + one.width));
  const bottom = Math.max(height, ...patches.map((one) => one.y + one.height));
  const x = Math.min(0, ...patches.map((one) => one.x));
  const y = Math.min(0, ...patches.map((one) => one.y));
  return { x, y, width: right - x, height: bottom - y };
}

/** The frame of the free canvas moved: a quarter of it stays over what is there, which it goes on from. */
export function slid(doc: Doc, dx: number, dy: number): Frame {
  const { frame } = doc;
  const cover = coverOf(doc);
  const within = (value: number, low: number, size: number, own: number) =>
    Math.round(Math.min(Math.max(value, low - own * 0.75), low + size - own * 0.25));
  return {
    ...frame,
    x: within(frame.x + dx, cover.x, cover.width, frame.width),
    y: within(frame.y + dy, cover.y, cover.height, frame.height),
  };
}

/** Base and patches as the server puts them together. */
export const piecesOf = ({ base, patches = [] }: Pick<Doc, "base" | "patches">): { id: string; x: number; y: number }[] =>
  [{ id: base.id, x: 0, y: 0 }, ...patches.map(({ id, x, y }) => ({ id, x, y }))];

/** The document with the result of a frame on it. */
export const patched = (doc: Doc, picture: { id: string; width: number; height: number }, at: Frame): Doc =>
  ({ ...doc, patches: [...(doc.patches ?? []), { id: picture.id, x: at.x, y: at.y, width: picture.width, height: picture.height }] });

export interface Saved {
  format: 1;
  mode: Mode;
  prompt: string;
  job: string | null;
  /** Frame of the free canvas that the job fills. */
  at?: Frame | null;
  past: readonly Doc[];
  now: Doc;
  future: readonly Doc[];
}

const MOST_BYTES = 200_000;

/** The state without the oldest history that does not fit what the server keeps for a canvas. */
export function fitted(saved: Saved): Saved {
  let { past, future } = saved;
  while (past.length + future.length && JSON.stringify({ ...saved, past, future }).length > MOST_BYTES) {
    if (future.length) future = [];
    else past = past.slice(Math.ceil(past.length / 4));
  }
  return { ...saved, past, future };
}
