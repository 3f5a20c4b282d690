// Zoom and pan of the editor's stage.
import { useEffect, useRef, useState } from "preact/hooks";

export interface View {
  scale: number;
  x: number;
  y: number;
}

export interface Viewport {
  /** Left, top, right, bottom of what should be seen, in pixels of the picture. */
  bounds: readonly [number, number, number, number];
}

const LEAST = 0.05;
const MOST = 32;

export function fit(width: number, height: number, [left, top, right, bottom]: Viewport["bounds"], margin = 28): View {
  const wide = right - left;
  const high = bottom - top;
  const scale = Math.min((width - 2 * margin) / wide, (height - 2 * margin) / high, MOST);
  const kept = Math.max(scale, LEAST);
  return { scale: kept, x: (width - wide * kept) / 2 - left * kept, y: (height - high * kept) / 2 - top * kept };
}

/** The view scaled by `factor`, with the point (x, y) of the stage where it is. */
export function zoomed(view: View, factor: number, x: number, y: number): View {
  const scale = Math.min(Math.max(view.scale * factor, LEAST), MOST);
  const ratio = scale / view.scale;
  return { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
}

/** The view of an element's inside; it fits `bounds` until someone moves it. */
export function useView(bounds: Viewport["bounds"]) {
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<View>({ scale: 1, x: 0, y: 0 });
  const [touched, setTouched] = useState(false);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const stage = element.current;
    if (!stage) return;
    const read = () => setSize({ width: stage.clientWidth, height: stage.clientHeight });
    const observer = new ResizeObserver(read);
    observer.observe(stage);
    read();
    return () => observer.disconnect();
  }, []);
  const key = bounds.join();
  useEffect(() => {
    if (!touched && size.width) setView(fit(size.width, size.height, bounds));
  }, [key, size, touched]);
  const move = (change: (view: View) => View) => {
    setTouched(true);
    setView(change);
  };
  return {
    element,
    view,
    move,
    zoom: (factor: number) => move((now) => zoomed(now, factor, size.width / 2, size.height / 2)),
    reset: () => setTouched(false),
  };
}
