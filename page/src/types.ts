// Shapes of the server's answers (its OpenAPI document has them all).

export type JobState = "waiting" | "running" | "paused" | "done" | "failed" | "cancelled";

export interface Source {
  role: string;
  picture?: string | null;
  upload?: string | null;
}

/** Side of a square, or height and width. */
export type Size = number | readonly [height: number, width: number];

/** A request as the server's schema describes it: `kind` and the fields of that kind. */
export interface RequestBody {
  kind: string;
  [field: string]: unknown;
}

export interface Picture {
  id: string;
  job: string;
  index: number;
  kind: string;
  width: number;
  height: number;
  seed: number | null;
  prompt: string | null;
  model: string;
  request: RequestBody;
  sources: Source[];
  created: string;
  starred: boolean;
  title: string | null;
  collections: string[];
  deleted: string | null;
  url: string;
  thumbnail_url: string;
  warnings: string[];
}

export interface Job {
  id: string;
  state: JobState;
  kind: string;
  request: RequestBody;
  model: string;
  n: number;
  done: number;
  pictures: (Picture | null)[];
  place: number | null;
  eta_seconds: number | null;
  priority: number;
  created: string;
  started: string | null;
  ended: string | null;
  error: string | null;
  warnings: string[];
  /** Given pictures in the request's order. */
  sources: { role: string; id: string }[];
  /** State of each picture. */
  states: string[];
}

export interface ModelInfo {
  name: string;
  title?: string;
  /** Sides of the pictures that it makes, ascending. */
  sizes?: number[];
  default_size?: number;
  /** Number whose multiples its sides may be; null for a model that draws `sizes` alone. */
  size_step?: number | null;
  /** Longest side that it draws. */
  longest_side?: number;
  parts?: string[];
  operations?: Record<string, true | string>;
  default_sampling?: Sampling;
  /** Why the model cannot be opened. */
  error?: string;
}

export interface Sampling {
  prior?: Record<string, unknown>;
  decoder?: Record<string, unknown>;
  upsamplers?: Record<string, unknown>[];
  fast?: boolean | null;
}

export interface Config {
  version: string;
  models: ModelInfo[];
  default_model: string;
  limits: { max_n: number; max_side: number; max_upload: number };
  key_required: boolean;
}

export interface Collection {
  id: string;
  name: string;
  pictures?: number;
}

export interface Upload {
  id: string;
  width: number;
  height: number;
  has_alpha: boolean;
  request: RequestBody | null;
}

export interface QueueState {
  paused: boolean;
  waiting: number;
  running: number;
  workers: unknown[];
}

export interface SystemState {
  models: { name: string; state: string; bytes: number | null }[];
  memory: unknown;
  device: unknown;
  store: unknown;
  database: unknown;
  uptime: number;
  version: string;
}

/** A caption's fit to a picture. */
export interface Match {
  caption: string;
  cosine: number;
  probability: number;
}

export interface Canvas {
  id: string;
  name: string;
  width: number;
  height: number;
  base: string | null;
  state: unknown;
  updated?: string;
}

export interface Page<Item> {
  items: Item[];
  next: string | null;
  total?: number;
}
