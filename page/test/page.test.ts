import assert from "node:assert/strict";
import { test } from "node:test";
import { brief, first } from "../src/brief.ts";
import { nameOf } from "../src/keys.ts";
import { surprise } from "../src/places/create.tsx";
import { byDay } from "../src/places/library.tsx";
import { inOrder } from "../src/places/queue.tsx";
import { rowsOf } from "../src/parts/provenance.tsx";
import { link, parse } from "../src/route.ts";
import { DRAFT, draftOf, requestOf } from "../src/settings.ts";
import { choicesOf, nameOfSize, nearestSide, readSize, sizeNamed } from "../src/sizes.ts";
import type { Job, Picture } from "../src/types.ts";

test("addresses are read as they are written", () => {
  assert.deepEqual(parse(link("image", "a/b", "ä %")), { place: "image", rest: ["a/b", "ä %"] });
  assert.deepEqual(parse(""), { place: "create", rest: [] });
  assert.deepEqual(parse("#/library"), { place: "library", rest: [] });
  assert.deepEqual(parse("#/image/%E0%A4%A"), { place: "image", rest: ["%E0%A4%A"] });
});

test("long words are cut for titles, and never in the middle of a character", () => {
  assert.equal(first("x".repeat(99) + "🚀🚀", 100), "x".repeat(99) + "🚀");
  assert.equal(first("🚀".repeat(20_000), 100), "🚀".repeat(100));
  assert.equal(brief("a  fox\n in the snow "), "a fox in the snow");
  assert.equal(brief("x".repeat(160)), "x".repeat(160));
  assert.equal(brief("x".repeat(161)), "x".repeat(159) + "…");
  assert.equal(brief("🚀".repeat(10_000)), "🚀".repeat(159) + "…");
  assert.equal(brief("ab ".repeat(2000)).length, 159);
  assert.equal(brief(" ".repeat(10_000)), "");
});

test("a request holds what was chosen and nothing else", () => {
  assert.deepEqual(requestOf({ ...DRAFT, prompt: " a fox " }, 4), { kind: "generate", prompt: "a fox", n: 4 });
  assert.deepEqual(requestOf({ ...DRAFT, prompt: "a fox", seed: 7, locked: false }, 1), { kind: "generate", prompt: "a fox", n: 1 });
  assert.deepEqual(
    requestOf({ ...DRAFT, prompt: "a fox", seed: 0, locked: true, steps: 9, guidance: 0, candidates: 2, quick: true, size: 64 }, 1),
    { kind: "generate", prompt: "a fox", n: 1, size: 64, seed: 0,
      sampling: { decoder: { steps: 9, guidance: 0 }, prior: { candidates: 2 }, fast: true } });
});

test("a starting picture is varied without words and redrawn with them", () => {
  const start = { id: "p", of: "picture" as const, name: "" };
  assert.deepEqual(requestOf({ ...DRAFT, start }, 2), { kind: "vary", n: 2 });
  assert.deepEqual(requestOf({ ...DRAFT, start, prompt: "a wolf", strength: 0.5 }, 2),
    { kind: "redraw", prompt: "a wolf", n: 2, strength: 0.5 });
});

test("what a picture records becomes the same request again", () => {
  const request = {
    kind: "generate", prompt: "a fox", negative: "blue", n: 3, size: 64, seed: 5,
    sampling: { decoder: { steps: 9, guidance: 2.5, sampler: "ddim" }, prior: { kind: "text", steps: 4, guidance: 1.5, candidates: 2 } },
  };
  assert.deepEqual(requestOf(draftOf(request), 3), request);
  assert.equal(draftOf({ kind: "text_diff", target: "a cat" }).prompt, "a cat");
  assert.equal(draftOf({ kind: "generate", prompt: ["one", "two"] }).prompt, "one");
});

test("sizes are squares, or width and height of a model that draws many", () => {
  const latent = { name: "sd", sizes: [512], default_size: 512, size_step: 8, longest_side: 4096 };
  assert.deepEqual(choicesOf(latent, 4096).map(nameOfSize), ["512", "768x512", "512x768", "912x512", "512x912"]);
  assert.deepEqual(choicesOf(latent, 600).map(nameOfSize), ["512", "600x512", "512x600"]);
  assert.deepEqual(choicesOf({ name: "artwork", sizes: [64, 256, 1024], default_size: 256, size_step: null }, 512), [64, 256]);
  assert.deepEqual([7, 300, 1e9, -5].map((side) => nearestSide(side, 64, 1000)), [64, 320, 960, 64]);
  for (const size of [256, [512, 768]] as const) assert.deepEqual(sizeNamed(nameOfSize(size)), size);
  assert.deepEqual([7, [7, 7], [7, 9], [7], "7", null].map(readSize), [7, 7, [7, 9], null, null, null]);
  const request = { kind: "generate", prompt: "a fox", n: 1, size: [512, 768] };
  assert.deepEqual(requestOf(draftOf(request), 1), request);
});

const picture = (created: string): Picture => ({ created, request: { kind: "generate" } }) as Picture;

test("pictures are grouped by day, near ones in words", () => {
  const now = new Date(2026, 4, 10, 12);
  const at = (day: number, hour: number) => new Date(2026, 4, day, hour).toISOString();
  const days = byDay([picture(at(10, 11)), picture(at(10, 0)), picture(at(9, 23)), picture(at(2, 8))], now);
  assert.deepEqual(days.map(([day, all]) => [day, all.length]).slice(0, 2), [["Today", 2], ["Yesterday", 1]]);
  assert.match(days[2]![0], /2026/);
});

test("waiting jobs are in the order of their places; paused ones without place come last", () => {
  const job = (id: string, state: string, place: number | null, created = "1") => ({ id, state, place, created, priority: 0 }) as Job;
  const jobs = [job("d", "done", null), job("p", "paused", null), job("b", "waiting", 2), job("a", "waiting", 1)];
  assert.deepEqual(inOrder(jobs).map((one) => one.id), ["a", "b", "p"]);
});

test("the table of a picture names settings, and leaves out what is open", () => {
  const rows = Object.fromEntries(rowsOf({
    kind: "generate", prompt: "a fox", model: "m", seed: 0, width: 8, height: 9, created: "2026-05-10T00:00:00Z",
    request: { kind: "generate", prompt: "a fox", negative: null, strength: 0.5,
      sampling: { decoder: { steps: 9, sampler: null }, upsamplers: [{ steps: 1 }, { steps: 2 }] } },
  } as unknown as Picture));
  assert.equal(rows["Seed"], "0");
  assert.equal(rows["Size"], "8 × 9");
  assert.equal(rows["Decoder"], "steps 9");
  assert.equal(rows["Upsampler 2"], "steps 2");
  assert.equal(rows["Strength"], "0.5");
  assert.equal("Without" in rows, false);
});

test("keys have one name on all systems", () => {
  const key = (fields: object) => nameOf({ ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...fields } as KeyboardEvent);
  assert.equal(key({ key: "Z", metaKey: true, shiftKey: true }), "ctrl+shift+z");
  assert.equal(key({ key: "?", shiftKey: true }), "?");
  assert.equal(key({ key: "ArrowLeft" }), "arrowleft");
});

test("a surprise is a whole sentence", () => {
  for (let index = 0; index < 50; index += 1) assert.match(surprise(), /^an? (\w+) [\w ]+, \w+ style$/);
});
