// Sizes of pictures as requests hold them: the side of a square, or height and width. The server says which ones a model draws.
import type { ModelInfo, Size } from "./types.ts";

/** Height and width. */
export const extentOf = (size: Size): readonly [height: number, width: number] => (typeof size === "number" ? [size, size] : size);

export const sizeOf = (height: number, width: number): Size => (height === width ? height : [height, width]);

/** The size that a value of JSON is; null for anything else. */
export function readSize(value: unknown): Size | null {
  if (typeof value === "number") return value;
  if (!Array.isArray(value) || value.length !== 2) return null;
  const [height, width] = value as unknown[];
  return typeof height === "number" && typeof width === "number" ? sizeOf(height, width) : null;
}

/** The size as the server's filter and menus write it: width first. */
export function nameOfSize(size: Size): string {
  const [height, width] = extentOf(size);
  return height === width ? String(height) : `${width}x${height}`;
}

export function sizeNamed(name: string): Size | null {
  const [width, height = width] = name.split("x").map(Number);
  return width && height ? sizeOf(height, width) : null;
}

/** The nearest side that the model draws, where it draws many. */
export function nearestSide(side: number, step: number, most: number): number {
  return Math.min(Math.max(Math.round(side / step), 1), Math.max(Math.floor(most / step), 1)) * step;
}

const SHAPES: readonly (readonly [width: number, height: number])[] = [[3, 2], [2, 3], [16, 9], [9, 16]];

/** Sizes to choose from: squares, and of a model that draws many sizes the usual shapes, whose shorter side is its own. */
export function choicesOf(known: ModelInfo | null, most: number): Size[] {
  const squares = (known?.sizes ?? []).filter((side) => side <= most);
  const { size_step: step, default_size: own } = known ?? {};
  if (!step || !own) return squares;
  const side = (share: number, least: number) => nearestSide((own * share) / least, step, most);
  const shapes = SHAPES.map(([width, height]) => {
    const least = Math.min(width, height);
    return sizeOf(side(height, least), side(width, least));
  });
  const names = new Set(shapes.filter((shape) => typeof shape !== "number").map(nameOfSize));
  return [...squares, ...[...names].map((name) => sizeNamed(name)!)];
}
