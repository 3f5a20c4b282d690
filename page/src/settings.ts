// What this browser remembers: settings, and the request that is being written.
import { effect, signal } from "@preact/signals";
import { readSize } from "./sizes.ts";
import type { RequestBody, Sampling, Size } from "./types.ts";

export interface Settings {
  theme: "system" | "light" | "dark";
  motion: "system" | "less" | "full";
  singleKeys: boolean;
  previews: boolean;
  n: number;
}

export interface StartPicture {
  id: string;
  of: "picture" | "upload";
  /** Address that shows it; uploads are shown from memory and keep none over a reload. */
  name: string;
}

export interface Draft {
  prompt: string;
  negative: string;
  model: string;
  n: number | null;
  size: Size | null;
  seed: number | null;
  locked: boolean;
  steps: number | null;
  guidance: number | null;
  sampler: string;
  quick: boolean;
  priorKind: string;
  priorSteps: number | null;
  priorGuidance: number | null;
  candidates: number | null;
  strength: number;
  start: StartPicture | null;
}

const SETTINGS: Settings = { theme: "system", motion: "system", singleKeys: true, previews: true, n: 4 };
export const DRAFT: Draft = {
  prompt: "", negative: "", model: "", n: null, size: null, seed: null, locked: false, steps: null, guidance: null,
  sampler: "", quick: false, priorKind: "", priorSteps: null, priorGuidance: null, candidates: null, strength: 0.7,
  start: null,
};

function kept<T extends object>(name: string, initial: T) {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(name) ?? "{}") ?? {};
  } catch {
    // Storage is off, or another program wrote it: the page works without.
  }
  const value = signal<T>({ ...initial, ...stored });
  effect(() => {
    const now = JSON.stringify(value.value);
    try {
      localStorage.setItem(name, now);
    } catch {
      // As above.
    }
  });
  return value;
}

export const settings = kept<Settings>("unclip.settings", SETTINGS);
export const draft = kept<Draft>("unclip.draft", DRAFT);

export const set = (change: Partial<Settings>): void => void (settings.value = { ...settings.value, ...change });
export const write = (change: Partial<Draft>): void => void (draft.value = { ...draft.value, ...change });

effect(() => {
  const { theme, motion } = settings.value;
  document.documentElement.dataset["theme"] = theme;
  document.documentElement.dataset["motion"] = motion;
});

const given = (fields: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== "" && value !== false));

/** Sampling settings of the draft that differ from the model's. */
export function samplingOf(from: Draft): Sampling | undefined {
  const decoder = given({ steps: from.steps, guidance: from.guidance, sampler: from.sampler });
  const prior = given({
    kind: from.priorKind, steps: from.priorSteps, guidance: from.priorGuidance, candidates: from.candidates,
  });
  const sampling = given({
    decoder: Object.keys(decoder).length ? decoder : null,
    prior: Object.keys(prior).length ? prior : null,
    fast: from.quick,
  });
  return Object.keys(sampling).length ? (sampling as Sampling) : undefined;
}

/** The request that the draft describes: a picture from words, a picture redrawn, or variations of one. */
export function requestOf(from: Draft, n: number): RequestBody {
  const words = from.prompt.trim();
  const kind = !from.start ? "generate" : words ? "redraw" : "vary";
  return {
    kind,
    ...(words ? { prompt: words } : {}),
    ...(from.negative.trim() && words ? { negative: from.negative.trim() } : {}),
    n,
    ...given({ size: from.size, seed: from.locked ? from.seed : null, sampling: samplingOf(from) ?? null }),
    ...(kind === "redraw" ? { strength: from.strength } : {}),
  };
}

const number = (value: unknown): number | null => (typeof value === "number" ? value : null);
const words = (value: unknown): string => (typeof value === "string" ? value : "");

/** The draft that a request describes: what "reuse everything" and a dropped picture put into the form. */
export function draftOf(request: RequestBody, start: StartPicture | null = null): Draft {
  const sampling = (request["sampling"] ?? {}) as Sampling;
  const seed = number(request["seed"]);
  const prompt = Array.isArray(request["prompt"]) ? request["prompt"][0] : request["prompt"] ?? request["target"];
  return {
    ...DRAFT,
    prompt: words(prompt),
    negative: words(request["negative"]),
    n: number(request["n"]),
    size: readSize(request["size"]),
    seed,
    locked: seed !== null,
    steps: number(sampling.decoder?.["steps"]),
    guidance: number(sampling.decoder?.["guidance"]),
    sampler: words(sampling.decoder?.["sampler"]),
    quick: sampling.fast === true,
    priorKind: words(sampling.prior?.["kind"]),
    priorSteps: number(sampling.prior?.["steps"]),
    priorGuidance: number(sampling.prior?.["guidance"]),
    candidates: number(sampling.prior?.["candidates"]),
    strength: number(request["strength"]) ?? DRAFT.strength,
    start,
  };
}
