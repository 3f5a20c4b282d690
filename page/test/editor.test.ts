import assert from "node:assert/strict";
import { test } from "node:test";
import { freshId } from "../src/editor/canvases.ts";
import {
  blank, changed, type Doc, fitted, type History, moved, redone, type Saved, sidesOf, undone, withSide,
} from "../src/editor/document.ts";
import { extended, onlyBox, rectangle } from "../src/editor/marks.ts";
import { fit, zoomed } from "../src/editor/view.ts";

const doc: Doc = blank({ id: "a", of: "picture" }, 100, 80);
const start: History = { past: [], now: doc, future: [] };

test("a box lies inside the picture, whichever corner comes first", () => {
  assert.deepEqual(rectangle(50.4, 60.6, -10, 20, 100, 80), [0, 20, 50, 61]);
  assert.equal(rectangle(10, 10, 10.2, 60, 100, 80), null);
  assert.equal(rectangle(120, 10, 140, 60, 100, 80), null);
});

test("points of a stroke that are too near are left out", () => {
  let points = extended([], 10, 10, 40);
  points = extended(points, 11, 11, 40);
  assert.deepEqual(points, [10, 10]);
  assert.deepEqual(extended(points, 20.3, 10, 40), [10, 10, 20.5, 10]);
});

test("one box needs no mask; other marks do", () => {
  assert.deepEqual(onlyBox([{ tool: "box", box: [1, 2, 3, 4] }]), [1, 2, 3, 4]);
  assert.equal(onlyBox([{ tool: "box", box: [1, 2, 3, 4] }, { tool: "eraser", size: 3, points: [2, 3] }]), null);
  assert.equal(onlyBox([]), null);
});

test("undo and redo go back and forth, and a change ends the redo", () => {
  const one = changed(start, { ...doc, width: 1 });
  const two = changed(one, { ...doc, width: 2 });
  assert.equal(undone(two).now.width, 1);
  assert.equal(redone(undone(two)).now.width, 2);
  assert.equal(undone(start).now, doc);
  assert.equal(redone(start).now, doc);
  assert.deepEqual(changed(undone(two), { ...doc, width: 3 }).future, []);
});

test("the frame adds what it has beyond the picture", () => {
  assert.deepEqual(sidesOf(doc), { left: 0, top: 0, right: 0, bottom: 0 });
  assert.deepEqual(sidesOf({ ...doc, frame: moved(doc, 30, -20) }), { left: 0, top: 20, right: 30, bottom: 0 });
  for (const side of ["left", "top", "right", "bottom"] as const) {
    const sides = sidesOf({ ...doc, frame: withSide(doc, side, 24) });
    assert.deepEqual(sides, { left: 0, top: 0, right: 0, bottom: 0, [side]: 24 });
  }
});

test("the frame keeps touching the picture", () => {
  assert.equal(moved(doc, 1e6, 0).x, 100);
  assert.equal(moved(doc, 0, -1e6).y, -80);
});

test("a canvas that is saved fits the server, and keeps its newest history", () => {
  const marks = [{ tool: "brush" as const, size: 9, points: Array.from({ length: 3000 }, (_, index) => index) }];
  const past = Array.from({ length: 60 }, (_, index) => ({ ...doc, width: index, marks }));
  const saved: Saved = { format: 1, mode: "repaint", prompt: "", job: null, past, now: doc, future: past };
  const kept = fitted(saved);
  assert.ok(JSON.stringify(kept).length <= 200_000);
  assert.equal(kept.now, doc);
  assert.ok(kept.past.length > 0);
  assert.equal(kept.past.at(-1)!.width, 59);
});

test("the view fits, and zooms around a point", () => {
  const view = fit(400, 400, [0, 0, 100, 50], 50);
  assert.deepEqual(view, { scale: 3, x: 50, y: 125 });
  const near = zoomed(view, 2, 200, 200);
  assert.equal(near.scale, 6);
  assert.equal((200 - near.x) / near.scale, (200 - view.x) / view.scale);
});

test("fresh ids are UUIDs", () => {
  assert.match(freshId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(freshId(), freshId());
});
