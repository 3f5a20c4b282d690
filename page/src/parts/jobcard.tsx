// A job as people see it: its words, how far it is, and its pictures.
import { api } from "../api.ts";
import { attempt, dropJob, isActive, putJob, titleOf } from "../store.ts";
import { text } from "../text.ts";
import type { Job } from "../types.ts";
import { Button } from "./controls.tsx";
import { JobTile } from "./tile.tsx";

/** State of a job in words: "Drawing · 1 of 4 · about 8 s". */
export function statusOf(job: Job): string {
  const parts = [text.job.states[job.state]];
  if (job.state === "waiting" && job.place !== null) parts.push(text.job.place(job.place));
  if (job.state === "running" && job.n > 1) parts.push(text.job.progress(job.done, job.n));
  if (isActive(job) && job.state !== "paused" && job.eta_seconds !== null) parts.push(text.job.eta(job.eta_seconds));
  return parts.join(" · ");
}

const act = (job: Job, verb: "cancel" | "retry") => attempt(async () => putJob(await api.act(job.id, verb)));

export function JobActions({ job }: { job: Job }) {
  if (isActive(job))
    return (
      <Button small look="quiet" icon="close" label={text.job.cancelJob(titleOf(job))} onClick={() => act(job, "cancel")}>
        {text.job.cancel}
      </Button>
    );
  if (job.state === "done") return null;
  return (
    <>
      <Button small look="quiet" icon="restore" onClick={() => act(job, "retry")}>{text.job.retry}</Button>
      <Button
        small look="quiet" icon="close" label={text.job.forget}
        onClick={() => attempt(async () => {
          await api.forget(job.id);
          dropJob(job.id);
        })}
      />
    </>
  );
}

interface JobCardProps {
  job: Job;
  /** Whether the words of the job are shown above its pictures. */
  titled?: boolean;
}

export function JobCard({ job, titled = true }: JobCardProps) {
  const { error } = job;
  const title = titleOf(job);
  const shown = isActive(job) || job.pictures.some(Boolean) ? Math.max(job.n, job.pictures.length) : 0;
  return (
    <article class={`job ${job.state}`} aria-label={title} aria-busy={job.state === "running"}>
      <header>
        {titled && <h2>{title}</h2>}
        {job.state !== "done" && <p class="status">{statusOf(job)}</p>}
        <div class="job-actions"><JobActions job={job} /></div>
      </header>
      {error && <p class="problem" role="alert">{error}</p>}
      {job.warnings.map((warning) => <p class="note" key={warning}>{warning}</p>)}
      {shown > 0 && (
        <div class={`tiles n${Math.min(shown, 4)}`}>
          {Array.from({ length: shown }, (_, index) => <JobTile key={index} job={job} index={index} />)}
        </div>
      )}
    </article>
  );
}
