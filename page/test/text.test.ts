import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pseudo } from "../pseudo.ts";
import { listOf } from "../src/brief.ts";
import { text } from "../src/text.ts";

const folder = process.env["PAGE_SOURCE"]!;
const sources = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((name) => /\.tsx?$/.test(name) && !name.endsWith("text.ts"))
  .map((name) => readFileSync(join(folder, name), "utf8"));

/** Paths of all texts: "create.heading", and of lists their name alone. */
function paths(value: unknown, path: string[] = []): string[][] {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return Object.entries(value).flatMap(([name, inside]) => paths(inside, [...path, name]));
  return [path];
}

/** Groups whose texts are chosen by a name that the server or a setting gives. */
const CHOSEN = ["kinds", "operations", "job.states", "job.stages", "image.stages", "queue.modelStates", "nav.theme", "options.priorKinds"];

test("every text is used", () => {
  // `words` of a file stands for the groups that it names; `{ a, b } = text.x` takes texts out of one.
  const used = (path: string[]): boolean => {
    const name = path.at(-1)!;
    const group = path.slice(0, -1).join(".");
    const word = new RegExp(`\\b${name}\\b`);
    const whole = new RegExp(`\\btext\\.${path.join("\\.")}\\b`);
    return sources.some((source) => whole.test(source) ||
      (source.includes(`text.${group}`) || source.includes(`text.${path[0]}`)) && word.test(source.replaceAll(/^import .*$/gm, "")));
  };
  const own = (path: string[]) => new RegExp(`\\btext\\.${path.join("\\.")}\\b`).test(readFileSync(join(folder, "text.ts"), "utf8"));
  const unused = paths(text).filter((path) => !CHOSEN.some((group) => path.join(".").startsWith(`${group}.`)) && !used(path) && !own(path));
  assert.deepEqual(unused.map((path) => path.join(".")), []);
});

test("a pseudo-locale changes every text and keeps what varies", () => {
  const made = pseudo(text);
  assert.match(made.create.heading, /^⟦.+⟧$/);
  assert.notEqual(made.create.heading, `⟦${text.create.heading}⟧`);
  assert.match(made.job.place(3), /^⟦.*3.*⟧$/);
  assert.equal(made.language, "en");
  assert.equal(made.examples.length, text.examples.length);
});

test("a list of prompts is read from what people paste", () => {
  assert.deepEqual(listOf("a red fox\r\n\r\n- a blue cat\n# no\n2. two cars\n\"a \"\"big\"\" tree\",\n  \n"),
    ["a red fox", "a blue cat", "two cars", 'a "big" tree']);
  assert.deepEqual(listOf("\uFEFF3d rocket\n1984"), ["3d rocket", "1984"]);
  assert.deepEqual(listOf(""), []);
});
