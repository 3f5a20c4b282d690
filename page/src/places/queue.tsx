// Queue and system: what is drawn and in which order, models, memory, and settings.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { Button } from "../parts/controls.tsx";
import { JobActions, statusOf } from "../parts/jobcard.tsx";
import { Settings } from "../parts/settings.tsx";
import { JobTile } from "../parts/tile.tsx";
import { announce, attempt, config, isActive, jobs, live, putJob, queue, refresh, sortedJobs, titleOf } from "../store.ts";
import { text } from "../text.ts";
import type { Job, SystemState } from "../types.ts";

const words = text.queue;
const ENDED = 10;

/** Waiting and paused jobs in the order in which they will be drawn. */
export function inOrder(all: readonly Job[]): Job[] {
  return all.filter((job) => job.state === "waiting" || job.state === "paused")
    .sort((a, b) => (a.place ?? Infinity) - (b.place ?? Infinity) || b.priority - a.priority || (a.created < b.created ? -1 : 1));
}

function percentOf(job: Job): number {
  const running = live.value[job.id] ?? {};
  const shares = Array.from({ length: job.n }, (_, index) => {
    if (job.pictures[index]) return 1;
    const state = running[index];
    return state ? state.fraction : 0;
  });
  return Math.round((100 * shares.reduce((sum, one) => sum + one, 0)) / Math.max(1, job.n));
}

function Row({ job, before, after }: { job: Job; before?: Job; after?: Job }) {
  const title = titleOf(job);
  const { error } = job;
  const change = (action: () => Promise<Job>) => attempt(async () => {
    putJob(await action());
    await refresh();
  });
  const made = job.pictures.filter(Boolean).length;
  return (
    <li class={`queue-row ${job.state}`}>
      <div class="queue-words">
        <strong>{title}</strong>
        <span class="muted">{statusOf(job)}</span>
        {error && <span class="problem">{error}</span>}
        {job.state === "running" && (
          <div class="bar" role="progressbar" aria-label={title} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percentOf(job)}>
            <div style={{ transform: `scaleX(${percentOf(job) / 100})` }} />
          </div>
        )}
      </div>
      {made > 0 && !isActive(job) && (
        <div class="queue-pictures">
          {job.pictures.map((one, index) => one && <JobTile key={one.id} job={job} index={index} />)}
        </div>
      )}
      <div class="queue-actions">
        {(job.state === "waiting" || job.state === "running") && (
          <Button small look="quiet" icon="pause" label={words.pause} onClick={() => change(() => api.act(job.id, "pause"))} />
        )}
        {job.state === "paused" && (
          <Button small look="quiet" icon="play" label={words.resume} onClick={() => change(() => api.act(job.id, "resume"))} />
        )}
        {before && (
          <Button small look="quiet" icon="up" label={words.upOf(title)} onClick={() => change(() => api.move(job.id, { before: before.id }))} />
        )}
        {after && (
          <Button small look="quiet" icon="down" label={words.downOf(title)} onClick={() => change(() => api.move(after.id, { before: job.id }))} />
        )}
        <JobActions job={job} />
      </div>
    </li>
  );
}

/** A value of the server's in words: bytes as such, folders and names as they are, tables as pairs. */
function shown(name: string, value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return /bytes|memory|used|total|free|limit|budget|rss|size/.test(name) ? words.bytes(value) : String(value);
  if (Array.isArray(value)) return value.map((one) => shown(name, one)).join(", ") || "–";
  if (typeof value === "object")
    return Object.entries(value).map(([key, one]) => `${text.image.fieldOf(key)} ${shown(key, one)}`).join(" · ");
  return String(value);
}

/** Button that has a model's files compared with their hashes, and what came out. */
function Verify({ name, title }: { name: string; title: string }) {
  const [found, setFound] = useState<{ ok: boolean | null; message: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    setFound(null);
    const made = await attempt(() => api.verify(name));
    setBusy(false);
    if (!made) return;
    setFound(made);
    announce(words.verified(made.ok, made.message));
  };
  return (
    <>
      <Button small look="quiet" icon="badge" label={words.verifyOf(title)} disabled={busy} onClick={run}>{busy ? words.verifying : words.verify}</Button>
      {found && <p class={found.ok ? "verified" : "problem"}>{words.verified(found.ok, found.message)}</p>}
    </>
  );
}

function System() {
  const [system, setSystem] = useState<SystemState | null>(null);
  useEffect(() => {
    const read = () => !document.hidden && void api.system().then(setSystem, () => undefined);
    read();
    const timer = setInterval(read, 5000);
    return () => clearInterval(timer);
  }, []);
  if (!system) return null;
  const rows: [string, string][] = [
    [words.device, shown("device", system.device)],
    [words.memory, shown("memory", system.memory)],
    [words.store, shown("store", system.store)],
    [words.database, shown("database", system.database)],
    [words.workers, String(queue.value?.workers.length ?? 0)],
    [words.uptime, words.duration(system.uptime)],
    [words.version, system.version],
  ];
  return (
    <>
      <section aria-labelledby="models-heading">
        <h2 id="models-heading">{words.models}</h2>
        <ul class="models">
          {system.models.map((one) => {
            const known = config.value?.models.find((other) => other.name === one.name);
            const can = Object.entries(known?.operations ?? {}).filter(([, able]) => able === true);
            return (
              <li key={one.name}>
                <div>
                  <strong>{known?.title ?? one.name}</strong>
                  <span class={`state ${one.state}`}>{words.modelStates[one.state] ?? one.state}</span>
                  {one.bytes ? <span class="muted">{words.bytes(one.bytes)}</span> : null}
                  <Verify name={one.name} title={known?.title ?? one.name} />
                </div>
                {can.length > 0 && <p class="muted">{can.map(([kind]) => text.operations[kind] ?? kind).join(" · ")}</p>}
              </li>
            );
          })}
        </ul>
      </section>
      <section aria-labelledby="system-heading">
        <h2 id="system-heading">{words.system}</h2>
        <dl class="rows">{rows.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
      </section>
    </>
  );
}

export function QueuePlace() {
  const running = sortedJobs.value.filter((job) => job.state === "running");
  const waiting = inOrder([...jobs.value.values()]);
  const ended = sortedJobs.value.filter((job) => !isActive(job)).slice(0, ENDED);
  const paused = queue.value?.paused ?? false;
  return (
    <div class="place queue">
      <header class="queue-head">
        <h1>{words.heading}</h1>
        <Button
          icon={paused ? "play" : "pause"} pressed={paused}
          onClick={() => attempt(async () => {
            await api.pauseQueue(!paused);
            queue.value = await api.queue();
          })}
        >
          {paused ? words.resumeAll : words.pauseAll}
        </Button>
      </header>
      <div class="queue-columns">
        <div>
          {paused && <p class="note">{words.pausedNote}</p>}
          <section aria-labelledby="running-heading">
            <h2 id="running-heading">{words.running}</h2>
            {running.length ? <ul class="rows-list">{running.map((job) => <Row key={job.id} job={job} />)}</ul> : <p class="muted">{words.nothing}</p>}
          </section>
          {waiting.length > 0 && (
            <section aria-labelledby="waiting-heading">
              <h2 id="waiting-heading">{words.waiting}</h2>
              <ol class="rows-list">
                {waiting.map((job, index) => <Row key={job.id} job={job} before={waiting[index - 1]} after={waiting[index + 1]} />)}
              </ol>
            </section>
          )}
          {ended.length > 0 && (
            <section aria-labelledby="ended-heading">
              <h2 id="ended-heading">{words.ended}</h2>
              <ul class="rows-list">{ended.map((job) => <Row key={job.id} job={job} />)}</ul>
            </section>
          )}
        </div>
        <div>
          <Settings />
          <System />
        </div>
      </div>
    </div>
  );
}
