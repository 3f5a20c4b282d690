// What the page knows of the server: config, jobs, queue, and what changed in the library.
import { batch, computed, effect, signal } from "@preact/signals";
import { address, api, ApiError, keyWanted } from "./api.ts";
import { brief } from "./brief.ts";
import { text } from "./text.ts";
import type { Config, Job, ModelInfo, Picture, QueueState } from "./types.ts";
import { draft, settings } from "./settings.ts";

export interface Toast {
  id: number;
  message: string;
  bad: boolean;
  undo?: () => unknown;
}

/** How far a picture of a running job is, and how it looks. */
export interface Live {
  stage?: string;
  /** Finished share of the picture, 0 to 1. */
  fraction: number;
  image?: string;
  cancelled?: boolean;
}

export const config = signal<Config | null>(null);
export const connected = signal(true);
export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
export const jobsLoaded = signal(false);
export const live = signal<Readonly<Record<string, Record<number, Live>>>>({});
export const queue = signal<QueueState | null>(null);
export const toasts = signal<readonly Toast[]>([]);
export const announcement = signal("");
/** Counts changes of the library, for lists of pictures to be read again. */
export const libraryChanged = signal(0);
export const changedPicture = signal<Picture | null>(null);

export const model = computed<ModelInfo | null>(() => {
  const known = config.value;
  if (!known) return null;
  const named = known.models.find((one) => one.name === draft.value.model);
  return named ?? known.models.find((one) => one.name === known.default_model) ?? known.models[0] ?? null;
});

/** The model called `name` where the server has it, else the one in use. */
export const modelNamed = (name: string | undefined): ModelInfo | null =>
  config.value?.models.find((one) => one.name === name) ?? model.value;

/** Why a model cannot do an operation; null where it can. */
export function refusal(kind: string, name?: string): string | null {
  const known = modelNamed(name);
  const can = known?.operations?.[kind];
  return known?.error ?? (typeof can === "string" ? can : null);
}

export const sortedJobs = computed(() =>
  [...jobs.value.values()].sort((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0)));
export const isActive = (job: Job): boolean =>
  job.state === "running" || job.state === "waiting" || job.state === "paused";

let spoken = "";
export function announce(message: string): void {
  // A live region speaks changes alone: an invisible mark makes the same sentence a change.
  spoken = message === spoken ? `${message}\u00a0` : message;
  announcement.value = spoken;
}

let lastToast = 0;
export function toast(message: string, options: { bad?: boolean; undo?: () => unknown } = {}): void {
  const id = ++lastToast;
  const fresh: Toast = { id, message, bad: options.bad ?? false, undo: options.undo };
  toasts.value = [...toasts.value.slice(-2), fresh];
  announce(message);
  if (!fresh.bad) setTimeout(() => dismiss(id), fresh.undo ? 12_000 : 5_000);
}
export const dismiss = (id: number): void => void (toasts.value = toasts.value.filter((one) => one.id !== id));

export function complain(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) return;
  toast(error instanceof Error ? error.message : String(error), { bad: true });
}

/** Runs `action` and shows what went wrong. Returns its result, or undefined. */
export async function attempt<T>(action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

export const titleOf = (job: Pick<Job, "kind" | "request">): string => {
  const words = job.request["prompt"] ?? job.request["target"];
  return brief((Array.isArray(words) ? words.join(" · ") : (words as string | undefined)) ?? "") || (text.operations[job.kind] ?? job.kind);
};

export function putJob(job: Job): void {
  const before = jobs.value.get(job.id);
  const next = new Map(jobs.value);
  next.set(job.id, job);
  jobs.value = next;
  if (!before || before.state === job.state) {
    if (before && job.done > before.done && job.done < job.n) announce(text.job.announce(job.done, job.n));
    return;
  }
  if (job.state === "running") announce(text.job.announceStart(titleOf(job)));
  else if (!isActive(job)) {
    announce(text.job.announceEnd(text.job.states[job.state], titleOf(job)));
    libraryChanged.value += 1;
  }
}

export function dropJob(id: string): void {
  const next = new Map(jobs.value);
  if (next.delete(id)) jobs.value = next;
}

export function putPicture(picture: Picture): void {
  batch(() => {
    changedPicture.value = picture;
    const job = jobs.value.get(picture.job);
    if (!job) return;
    const pictures = [...job.pictures];
    while (pictures.length <= picture.index) pictures.push(null);
    pictures[picture.index] = picture;
    putJob({ ...job, pictures, done: pictures.filter(Boolean).length });
  });
}

function putLive(job: string, picture: number, change: Partial<Live>): void {
  const ofJob = live.value[job] ?? {};
  const before = ofJob[picture] ?? { fraction: 0 };
  live.value = { ...live.value, [job]: { ...ofJob, [picture]: { ...before, ...change } } };
}

export async function cancelPicture(job: Job, index: number): Promise<void> {
  await attempt(async () => {
    await api.cancelPicture(job.id, index);
    putLive(job.id, index, { cancelled: true });
    announce(text.job.cancelled);
  });
}

export async function refresh(): Promise<void> {
  const [found, state, known] = await Promise.all([api.jobs(), api.queue(), config.value ?? api.config()]);
  batch(() => {
    config.value = known;
    const next = new Map<string, Job>();
    for (const job of found.items) next.set(job.id, job);
    jobs.value = next;
    jobsLoaded.value = true;
    queue.value = state;
    connected.value = true;
    libraryChanged.value += 1;
  });
}

/** Reads open jobs again: their places and times change with those of others. */
async function refreshOpen(): Promise<void> {
  if (document.hidden || !connected.value || ![...jobs.value.values()].some(isActive)) return;
  const { items } = await api.jobs("open", 100);
  batch(() => items.forEach(putJob));
}

// --- events ---------------------------------------------------------------------------------------------------------
// Browsers open six connections to a server at most, all tabs together: a hidden tab closes its streams, and few jobs are
// followed step by step at a time.

const MOST_FOLLOWED = 2;
let all: EventSource | null = null;
let retry = 0;
const followed = new Map<string, EventSource>();

const on = <T>(source: EventSource, name: string, react: (data: T) => void): void =>
  source.addEventListener(name, (event) => react(JSON.parse((event as MessageEvent).data)));

function listen(): void {
  if (all || document.hidden || keyWanted.value) return;
  const source = (all = new EventSource(address("events")));
  on<Job>(source, "job", putJob);
  on<{ picture: Picture }>(source, "picture", (data) => putPicture(data.picture));
  on<{ job: string | null; picture: string | null }>(source, "deleted", (data) => {
    if (data.job && !data.picture) dropJob(data.job);
    libraryChanged.value += 1;
  });
  on<QueueState>(source, "queue", (data) => (queue.value = data));
  source.onopen = () => {
    retry = 0;
    void refresh().catch(() => undefined);
  };
  source.onerror = () => {
    connected.value = false;
    source.close();
    if (all === source) all = null;
    for (const stream of followed.values()) stream.close();
    followed.clear();
    if (!document.hidden) setTimeout(again, Math.min(500 * 2 ** retry++, 5000));
  };
}

async function again(): Promise<void> {
  // `refresh` says whether the server is back, or that it wants a key; an EventSource alone does not say which.
  await refresh().catch(() => undefined);
  listen();
}

function follow(id: string): void {
  const source = new EventSource(address(`jobs/${id}/events`));
  followed.set(id, source);
  const end = () => {
    source.close();
    if (followed.get(id) === source) followed.delete(id);
  };
  on<Job>(source, "job", putJob);
  on<{ picture: number; stage: string; fraction: number }>(source, "progress", (data) =>
    putLive(id, data.picture, { stage: data.stage, fraction: data.fraction }));
  on<{ picture: number; image: string }>(source, "preview", (data) => {
    if (/^data:image\/(png|webp|jpeg);/.test(data.image)) putLive(id, data.picture, { image: data.image });
    else putLive(id, data.picture, { image: new URL(data.image, document.baseURI).href });
  });
  on<{ index: number; picture: Picture }>(source, "picture", (data) => putPicture(data.picture));
  on<Job>(source, "end", (job) => {
    end();
    putJob(job);
    const { [id]: _, ...others } = live.value;
    live.value = others;
  });
  source.onerror = end;
}

function stopStreams(): void {
  all?.close();
  all = null;
  for (const stream of followed.values()) stream.close();
  followed.clear();
}

export function start(): void {
  void refresh().catch((error) => {
    connected.value = !(error instanceof ApiError) || error.status !== 0;
  }).finally(listen);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stopStreams();
    else void again();
  });
  addEventListener("pagehide", stopStreams);
  setInterval(() => void refreshOpen().catch(() => undefined), 4000);
  effect(() => {
    const wanted = settings.value.previews && connected.value
      ? [...jobs.value.values()].filter((job) => job.state === "running").slice(0, MOST_FOLLOWED).map((job) => job.id)
      : [];
    if (document.hidden) return;
    for (const id of wanted) if (!followed.has(id)) follow(id);
    for (const [id, stream] of followed) {
      const state = jobs.value.get(id)?.state;
      if (state !== "running") {
        stream.close();
        followed.delete(id);
      }
    }
  });
  // A key that was accepted opens what was refused before.
  effect(() => {
    if (!keyWanted.value && !connected.value) void again();
  });
}
