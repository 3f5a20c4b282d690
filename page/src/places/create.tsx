// Create: one box, one button, four pictures.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, thumbnailOf } from "../api.ts";
import { brief } from "../brief.ts";
import { useKeys } from "../keys.ts";
import { Batch } from "../parts/batch.tsx";
import { Button } from "../parts/controls.tsx";
import { ChooseFile, offer, uploaded } from "../parts/drop.tsx";
import { JobCard } from "../parts/jobcard.tsx";
import { Options } from "../parts/options.tsx";
import { draft, requestOf, settings, write } from "../settings.ts";
import { announce, attempt, config, jobsLoaded, model, putJob, refusal, sortedJobs, toast } from "../store.ts";
import { text } from "../text.ts";

const words = text.create;
const RECENT = 12;

const pick = <T,>(from: readonly T[]): T => from[Math.floor(Math.random() * from.length)]!;

export function surprise(): string {
  const { colours, things, styles, sentence } = text.surprise;
  return sentence(pick(colours), pick(things), pick(styles));
}

/** Sends the draft. Returns whether the server took it. */
export async function submit(): Promise<boolean> {
  const now = draft.value;
  if (!now.prompt.trim() && !now.start) {
    toast(words.emptyPrompt, { bad: true });
    return false;
  }
  const request = requestOf(now, now.n ?? settings.value.n);
  const refused = refusal(request.kind);
  if (refused) {
    toast(words.unsupported(refused), { bad: true });
    return false;
  }
  const job = await attempt(() => api.create({
    request,
    ...(now.start ? { sources: { picture: now.start.id } } : {}),
    ...(model.value && now.model ? { model: model.value.name } : {}),
    previews: settings.value.previews,
  }));
  if (!job) return false;
  putJob(job);
  announce(text.job.announceStart(brief(now.prompt) || words.vary));
  return true;
}

function Start() {
  const { start, strength, prompt } = draft.value;
  if (!start) return null;
  const source = start.of === "upload" ? uploaded.value[start.id] : thumbnailOf(start.id, 256);
  const percent = Math.round(strength * 100);
  return (
    <div class="start">
      {source ? <img src={source} alt={start.name || words.start} /> : <span class="start-blank" />}
      <div>
        <strong>{words.start}</strong>
        {prompt.trim() ? (
          <label class="inline">
            {words.strength}
            <input
              type="range" min={5} max={100} step={5} value={percent}
              aria-valuetext={words.strengthHint(percent)}
              onInput={(event) => write({ strength: event.currentTarget.valueAsNumber / 100 })}
            />
            <span class="muted">{words.strengthHint(percent)}</span>
          </label>
        ) : <p class="muted">{words.startHintVary}</p>}
      </div>
      <Button icon="close" look="quiet" label={words.removeStart} onClick={() => write({ start: null })} />
    </div>
  );
}

function Composer() {
  const box = useRef<HTMLTextAreaElement>(null);
  const [sending, setSending] = useState(false);
  const [open, setOpen] = useState(false);
  const [batch, setBatch] = useState(false);
  const now = draft.value;
  const fit = () => {
    const element = box.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, 240)}px`;
  };
  useEffect(fit, [now.prompt]);
  const run = async () => {
    if (sending) return;
    setSending(true);
    await submit();
    setSending(false);
  };
  const surpriseMe = () => {
    write({ prompt: surprise() });
    box.current?.focus();
  };
  useKeys({ "ctrl+enter": run, r: surpriseMe, b: () => setBatch(true) });
  const action = !now.start ? words.generate : now.prompt.trim() ? words.redraw : words.vary;
  return (
    <>
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void run();
      }}
    >
      <Start />
      <div class="box">
        <textarea
          ref={box} data-words data-autofocus rows={1} aria-label={words.prompt} placeholder={words.placeholder}
          value={now.prompt} maxLength={10_000} enterkeyhint="go" autoComplete="off" spellcheck
          onInput={(event) => write({ prompt: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            event.stopPropagation();
            void run();
          }}
        />
        <Button look="primary" type="submit" disabled={sending}>{action}</Button>
      </div>
      <div class="composer-more">
        <Button look="quiet" icon="dice" shortcut="r" onClick={surpriseMe}>{words.surprise}</Button>
        <ChooseFile onFile={offer}>{words.add}</ChooseFile>
        <Button look="quiet" icon="list" shortcut="b" onClick={() => setBatch(true)}>{text.batch.open}</Button>
        <Button look="quiet" icon="slider" expanded={open} onClick={() => setOpen(!open)}>{words.options}</Button>
      </div>
      {open && <Options />}
    </form>
    {batch && <Batch onClose={() => setBatch(false)} />}
    </>
  );
}

function Examples() {
  return (
    <section class="examples" aria-label={words.examplesHeading}>
      <h2>{words.examplesHeading}</h2>
      <ul>
        {text.examples.map((example) => (
          <li key={example}>
            <button
              type="button" class="example"
              onClick={() => {
                write({ prompt: example });
                void submit();
              }}
            >
              {example}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

export function Create() {
  const recent = sortedJobs.value.filter((job) => job.pictures.some((one) => one && !one.deleted) || job.state !== "done")
    .slice(0, RECENT);
  return (
    <div class={`place create ${recent.length ? "" : "fresh"}`}>
      <h1>{words.heading}</h1>
      <Composer />
      {!recent.length && (jobsLoaded.value || !config.value) && <Examples />}
      {recent.length > 0 && (
        <section class="jobs" aria-label={words.recent}>
          {recent.map((job) => <JobCard key={job.id} job={job} />)}
        </section>
      )}
    </div>
  );
}
