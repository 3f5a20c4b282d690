// Canvases on the server: made, read and saved.
import { api } from "../api.ts";
import { first } from "../brief.ts";
import type { Canvas } from "../types.ts";
import { type Base, blank, fitted, type Saved } from "./document.ts";

/** A random UUID, on pages of plain http addresses as well, where browsers lack `crypto.randomUUID`. */
export function freshId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

interface Wanted {
  picture?: string;
  upload?: string;
  width: number;
  height: number;
  name: string;
  prompt: string;
}

/** Saves a canvas of a picture or an upload. Returns its id. */
export async function newCanvas({ picture, upload, width, height, name, prompt }: Wanted): Promise<string> {
  const id = freshId();
  const base: Base = picture ? { id: picture, of: "picture" } : { id: upload ?? "", of: "upload" };
  const state: Saved = { format: 1, mode: "repaint", prompt, job: null, past: [], now: blank(base, width, height), future: [] };
  await saveCanvas(id, first(name, 100), state);
  return id;
}

/**
 * Saves a canvas, unless it was saved by another tab since `seen`. Returns the time of this state, for the next save.
 *
 * Throws an `ApiError` of status 409 where another tab was first.
 */
export async function saveCanvas(id: string, name: string, state: Saved, seen?: string): Promise<string | undefined> {
  const { width, height, base } = state.now;
  const made = { name, width, height, base: base.of === "picture" ? base.id : null, state: fitted(state) };
  return (await api.saveCanvas(id, seen === undefined ? made : { ...made, seen })).updated;
}

export function readState(canvas: Canvas): Saved | null {
  const state = typeof canvas.state === "string" ? JSON.parse(canvas.state) : canvas.state;
  return state && (state as Saved).format === 1 ? (state as Saved) : null;
}
