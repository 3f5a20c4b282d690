// The server's own API. Addresses are relative to the page, so that a reverse proxy may serve it below any path.
import { signal } from "@preact/signals";
import { text } from "./text.ts";
import type {
  Canvas, Collection, Config, Job, Match, Page, Picture, QueueState, RequestBody, SystemState, Upload,
} from "./types.ts";

/** Whether the server wants a key that this browser has not given. */
export const keyWanted = signal(false);

export class ApiError extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

export const address = (path: string): string => new URL(`api/${path}`, document.baseURI).href;

async function call(path: string, method = "GET", body?: unknown): Promise<Response> {
  const raw = body instanceof Blob;
  let answer: Response;
  try {
    answer = await fetch(address(path), {
      method,
      headers: body === undefined ? {} : { "Content-Type": raw ? body.type || "image/png" : "application/json" },
      body: body === undefined ? undefined : raw ? body : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(text.errors.unreachable, 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) keyWanted.value = true;
  let message = text.errors.status(answer.status);
  try {
    message = (await answer.json()).error.message ?? message;
  } catch {
    // An answer without the server's error shape, such as a proxy's: its status says the most.
  }
  throw new ApiError(message, answer.status);
}

const read = async <T>(path: string, method = "GET", body?: unknown): Promise<T> => {
  const answer = await call(path, method, body);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
};

const query = (fields: Record<string, string | number | boolean | null | undefined>): string => {
  const pairs = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}` : "";
};

export interface NewJob {
  request: RequestBody;
  sources?: Record<string, string>;
  model?: string;
  n?: number;
  previews?: boolean;
}

export interface PictureFilter {
  query?: string;
  kind?: string;
  model?: string;
  size?: string;
  starred?: boolean;
  collection?: string;
  deleted?: boolean;
  cursor?: string | null;
  limit?: number;
}

export const api = {
  config: () => read<Config>("config"),
  schema: () => read<any>("schema"),
  system: () => read<SystemState>("system"),
  login: (key: string) => read<unknown>("login", "POST", { key }),
  logout: () => read<unknown>("logout", "POST"),

  upload: (file: Blob) => read<Upload>("uploads", "POST", file),
  read: (file: Blob) =>
    read<{ request: RequestBody | null; source: string; warnings?: string[] }>("read", "POST", file),

  jobs: (state?: string, limit = 30) => read<Page<Job>>(`jobs${query({ state, limit })}`),
  job: (id: string) => read<Job>(`jobs/${id}`),
  create: (job: NewJob) => read<Job>("jobs", "POST", { previews: true, ...job }),
  forget: (id: string) => read<unknown>(`jobs/${id}`, "DELETE"),
  act: (id: string, verb: "cancel" | "pause" | "resume" | "retry") => read<Job>(`jobs/${id}/${verb}`, "POST"),
  move: (id: string, change: { priority?: number; before?: string | null }) =>
    read<Job>(`jobs/${id}`, "PATCH", change),
  cancelPicture: (id: string, index: number) => read<unknown>(`jobs/${id}/pictures/${index}/cancel`, "POST"),

  queue: () => read<QueueState>("queue"),
  pauseQueue: (paused: boolean) => read<unknown>(`queue/${paused ? "pause" : "resume"}`, "POST"),

  pictures: (filter: PictureFilter) => read<Page<Picture>>(`pictures${query({ ...filter })}`),
  picture: (id: string) => read<Picture>(`pictures/${id}`),
  change: (id: string, change: { starred?: boolean; title?: string | null }) =>
    read<Picture>(`pictures/${id}`, "PATCH", change),
  remove: (id: string) => read<unknown>(`pictures/${id}`, "DELETE"),
  restore: (id: string) => read<unknown>(`pictures/${id}/restore`, "POST"),
  lineage: (id: string) => read<{ ancestors: Picture[]; children: Picture[] }>(`pictures/${id}/lineage`),
  commands: (id: string) => read<Record<string, unknown>>(`pictures/${id}/commands`),
  zip: async (ids: string[]) => (await call("pictures/zip", "POST", { ids })).blob(),

  collections: () => read<Collection[] | Page<Collection>>("collections").then((found) =>
    Array.isArray(found) ? found : found.items),
  newCollection: (name: string) => read<Collection>("collections", "POST", { name }),
  renameCollection: (id: string, name: string) => read<Collection>(`collections/${id}`, "PATCH", { name }),
  removeCollection: (id: string) => read<unknown>(`collections/${id}`, "DELETE"),
  collect: (id: string, picture: string, inside: boolean) =>
    read<unknown>(`collections/${id}/pictures/${picture}`, inside ? "PUT" : "DELETE"),

  canvases: () => read<Canvas[] | Page<Canvas>>("canvases").then((found) =>
    Array.isArray(found) ? found : found.items),
  canvas: (id: string) => read<Canvas>(`canvases/${id}`),
  compose: async (pieces: readonly { id: string; x: number; y: number }[], frame?: readonly number[]) =>
    (await call("compose", "POST", { pieces, ...(frame ? { frame } : {}) })).blob(),
  captions: (id: string, captions: readonly string[], model?: string) =>
    read<{ items: { captions: Match[] }[] }>("pictures/captions", "POST", {
      ids: [id], ...(captions.length ? { captions } : {}), ...(model ? { model } : {}),
    }).then((found) => found.items[0]?.captions ?? []),
  verify: (name: string) =>
    read<{ ok: boolean | null; message: string }>(`models/${name.split("/").map(encodeURIComponent).join("/")}/verify`, "POST"),
  saveCanvas: (id: string, canvas: Omit<Canvas, "id"> & { seen?: string }) => read<Canvas>(`canvases/${id}`, "PUT", canvas),
  removeCanvas: (id: string) => read<unknown>(`canvases/${id}`, "DELETE"),
};

export const fileOf = (picture: string): string => address(`pictures/${picture}/file`);
export const thumbnailOf = (picture: string, side = 512): string =>
  address(`pictures/${picture}/thumbnail?side=${side}`);
