// Marks of what is to be drawn, as shapes: they undo exactly, and a canvas of any size saves in a few kilobytes.

export interface Stroke {
  tool: "brush" | "eraser";
  size: number;
  /** x and y in turn, in pixels of the picture. */
  points: readonly number[];
}

/** left, top, right, bottom; right and bottom are outside. */
export type Rectangle = readonly [number, number, number, number];

export interface BoxMark {
  tool: "box";
  box: Rectangle;
}

/** An outline that is filled. */
export interface LassoMark {
  tool: "lasso";
  points: readonly number[];
}

export type Mark = Stroke | BoxMark | LassoMark;

const bounded = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

/** A rectangle between two corners, inside the picture; null for an empty one. */
export function rectangle(ax: number, ay: number, bx: number, by: number, width: number, height: number): Rectangle | null {
  const left = Math.round(bounded(Math.min(ax, bx), 0, width));
  const right = Math.round(bounded(Math.max(ax, bx), 0, width));
  const top = Math.round(bounded(Math.min(ay, by), 0, height));
  const bottom = Math.round(bounded(Math.max(ay, by), 0, height));
  return left < right && top < bottom ? [left, top, right, bottom] : null;
}

/** Points of a stroke with (x, y) added, unless it is too near to the last one to be seen. */
export function extended(points: readonly number[], x: number, y: number, size: number): readonly number[] {
  const [lastX, lastY] = points.slice(-2);
  if (lastX !== undefined && lastY !== undefined && Math.hypot(x - lastX, y - lastY) < Math.max(1, size / 10)) return points;
  return [...points, Math.round(x * 2) / 2, Math.round(y * 2) / 2];
}

/** The one box that marks are, or null: a request can name it, and needs no mask file then. */
export function onlyBox(marks: readonly Mark[]): Rectangle | null {
  const [first] = marks;
  return marks.length === 1 && first?.tool === "box" ? first.box : null;
}

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

function outline(context: Context, points: readonly number[]): void {
  const [x = 0, y = 0, ...rest] = points;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x, y);
  for (let index = 0; index + 1 < rest.length; index += 2) context.lineTo(rest[index]!, rest[index + 1]!);
}

/** Paints marks in one colour, each larger by `margin` pixels on all sides. */
export function paint(context: Context, marks: readonly Mark[], colour: string, margin = 0): void {
  context.fillStyle = context.strokeStyle = colour;
  context.lineCap = context.lineJoin = "round";
  for (const mark of marks) {
    context.globalCompositeOperation = mark.tool === "eraser" ? "destination-out" : "source-over";
    if (mark.tool === "box") {
      const [left, top, right, bottom] = mark.box;
      context.fillRect(left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin);
      continue;
    }
    outline(context, mark.points);
    if (mark.tool === "lasso") {
      context.closePath();
      context.fill();
      context.lineWidth = 2 * margin;
      if (margin) context.stroke();
      continue;
    }
    context.lineWidth = mark.size + (mark.tool === "brush" ? 2 * margin : 0);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

/** Share of the picture that is marked, 0 to 1.. */
export function markedShare(marks: readonly Mark[], width: number, height: number, margin = 0): number {
  if (!marks.length) return 0;
  const { data } = painted(marks, width, height, margin).getImageData(0, 0, width, height);
  let found = 0;
  for (let index = 3; index < data.length; index += 4) if (data[index]! >= 128) found += 1;
  return found / (width * height);
}

function painted(marks: readonly Mark[], width: number, height: number, margin: number): OffscreenCanvasRenderingContext2D {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  paint(context, marks, "#000", margin);
  return context;
}

/** A PNG of the picture's size: opaque where it is kept, transparent where it is drawn. */
export async function maskFile(marks: readonly Mark[], width: number, height: number, margin = 0): Promise<Blob> {
  const context = painted(marks, width, height, margin);
  const pixels = context.getImageData(0, 0, width, height);
  // Edges of strokes are soft; the server reads fully transparent pixels alone, so each pixel is one or the other.
  for (let index = 0; index < pixels.data.length; index += 4) {
    const marked = pixels.data[index + 3]! >= 128;
    pixels.data[index] = pixels.data[index + 1] = pixels.data[index + 2] = 0;
    pixels.data[index + 3] = marked ? 0 : 255;
  }
  context.putImageData(pixels, 0, 0);
  return (context.canvas as OffscreenCanvas).convertToBlob({ type: "image/png" });
}

/** Share of a picture file that is fully transparent, 0 to 1. */
export async function emptyShare(file: Blob): Promise<number> {
  const image = await createImageBitmap(file);
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let found = 0;
  for (let index = 3; index < data.length; index += 4) if (data[index] === 0) found += 1;
  return found / (width * height);
}
