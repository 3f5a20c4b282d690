// Pictures on a way: from what one caption says to another (text diff), or from one picture to a second (blend). A slider
// goes through them.
import { useEffect, useState } from "preact/hooks";
import { api, fileOf, thumbnailOf } from "../api.ts";
import { useKeys } from "../keys.ts";
import { Button, Field, NumberField } from "../parts/controls.tsx";
import { uploaded } from "../parts/drop.tsx";
import { Icon } from "../parts/icons.tsx";
import { JobActions, statusOf } from "../parts/jobcard.tsx";
import { type Chosen, Picker } from "../parts/picker.tsx";
import { altOf } from "../parts/tile.tsx";
import { go, link } from "../route.ts";
import { settings } from "../settings.ts";
import { attempt, isActive, jobs, live, modelNamed, putJob, refusal, sortedJobs } from "../store.ts";
import { text } from "../text.ts";
import type { Job, Picture } from "../types.ts";

const words = text.path;

/** The newest job of a kind from these pictures: a reload shows what was there. */
function useJob(kind: string, first: string, second?: string): [Job | undefined, (job: Job) => void] {
  const [id, setId] = useState<string | null>(null);
  const known = id ? jobs.value.get(id) : undefined;
  const fits = (job: Job): boolean => {
    const [a, b] = job.sources.map((one) => one.id);
    return job.kind === kind && a === first && (second === undefined || b === second) && job.state !== "cancelled";
  };
  return [known ?? sortedJobs.value.find(fits), (job) => {
    putJob(job);
    setId(job.id);
  }];
}

function Slider({ job }: { job: Job }) {
  const [at, setAt] = useState(0);
  const [moved, setMoved] = useState(false);
  const n = Math.max(job.n, job.pictures.length);
  const ready = job.pictures.filter(Boolean).length;
  // Until it is moved by hand, the slider follows the newest picture.
  const newest = job.pictures.reduce((last, one, index) => (one ? index : last), -1);
  const index = Math.min(moved ? at : Math.max(newest, 0), n - 1);
  const picture = job.pictures[index];
  const preview = live.value[job.id]?.[index]?.image;
  const { error } = job;
  return (
    <section class="slider" aria-busy={isActive(job)}>
      <div class="slider-picture">
        {picture ? <img src={fileOf(picture.id)} alt={altOf(picture)} width={picture.width} height={picture.height} />
          : preview ? <img class="rough" src={preview} alt="" />
            : <p class="muted">{error ?? (isActive(job) ? words.waiting : text.job.missing)}</p>}
        {/* All pictures are in memory, so that the slider does not wait for them. */}
        <div hidden>{job.pictures.map((one) => one && <img key={one.id} src={fileOf(one.id)} alt="" />)}</div>
      </div>
      <input
        type="range" min={0} max={n - 1} step={1} value={index} aria-label={words.slider} disabled={!ready}
        aria-valuetext={words.position(index + 1, n)}
        onInput={(event) => {
          setMoved(true);
          setAt(event.currentTarget.valueAsNumber);
        }}
      />
      <ol class="ticks" aria-hidden="true">
        {Array.from({ length: n }, (_, one) => {
          const made = job.pictures[one];
          return <li key={one} class={one === index ? "here" : ""}>{made && <img src={thumbnailOf(made.id, 128)} alt="" onClick={() => {
            setMoved(true);
            setAt(one);
          }} />}</li>;
        })}
      </ol>
      <div class="actions">
        {job.state !== "done" && <p class="status">{statusOf(job)}</p>}
        <JobActions job={job} />
        {picture && <a class="button" href={link("image", picture.id)}>{words.keep}</a>}
      </div>
    </section>
  );
}

/** The picture where the slider will be. */
function Before({ picture }: { picture: Picture }) {
  return (
    <section class="slider">
      <div class="slider-picture"><img src={fileOf(picture.id)} alt={altOf(picture)} width={picture.width} height={picture.height} /></div>
    </section>
  );
}

function Back({ picture, title, lead }: { picture: Picture; title: string; lead: string }) {
  useKeys({ escape: () => go("image", picture.id) });
  return (
    <header class="path-head">
      <a class="button quiet icon-only" href={link("image", picture.id)} aria-label={text.common.back} title={text.common.back}>
        <Icon name="left" />
      </a>
      <div><h1>{title}</h1><p class="muted">{lead}</p></div>
    </header>
  );
}

export function Diff({ picture }: { picture: Picture }) {
  const [baseline, setBaseline] = useState(picture.prompt ?? "");
  const [target, setTarget] = useState("");
  const [percent, setPercent] = useState(50);
  const [frames, setFrames] = useState<number | null>(5);
  const [job, setJob] = useJob("text_diff", picture.id);
  const refused = refusal("text_diff", picture.model);
  const found = job?.id;
  useEffect(() => {
    // A slider that is there already says what it was made of.
    if (!job || target) return;
    setTarget(String(job.request["target"] ?? ""));
    setBaseline(String(job.request["baseline"] ?? ""));
  }, [found]);
  const run = async () => {
    const made = await attempt(() => api.create({
      request: { kind: "text_diff", target: target.trim(), baseline: baseline.trim(), maximum: percent / 100, frames: frames ?? 5 },
      model: modelNamed(picture.model)?.name,
      sources: { picture: picture.id },
      previews: settings.value.previews,
    }));
    if (made) setJob(made);
  };
  useKeys({ "ctrl+enter": () => (target.trim() ? run() : false) });
  return (
    <div class="place path">
      <Back picture={picture} title={words.diffHeading} lead={words.diffLead} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <div class="path-fields">
          <Field label={words.baseline} wide>
            {(id) => <input id={id} type="text" value={baseline} onInput={(event) => setBaseline(event.currentTarget.value)} />}
          </Field>
          <Field label={words.target} wide>
            {(id) => (
              <input id={id} data-words type="text" required value={target} onInput={(event) => setTarget(event.currentTarget.value)} />
            )}
          </Field>
          <Field label={words.amount}>
            {(id) => (
              <input
                id={id} type="range" min={5} max={100} step={5} value={percent} aria-valuetext={`${percent} %`}
                onInput={(event) => setPercent(event.currentTarget.valueAsNumber)}
              />
            )}
          </Field>
          <NumberField label={words.frames} value={frames} min={2} max={24} onChange={setFrames} />
          <Button look="primary" type="submit" why={refused} disabled={!target.trim()}>{words.run}</Button>
        </div>
      </form>
      {job ? <Slider key={job.id} job={job} /> : <Before picture={picture} />}
    </div>
  );
}

export function Blend({ picture, second }: { picture: Picture; second?: string }) {
  const [frames, setFrames] = useState<number | null>(7);
  const [choosing, setChoosing] = useState(false);
  const [job, setJob] = useJob("interpolate", picture.id, second ?? "");
  const [other, setOther] = useState<Picture | null>(null);
  useEffect(() => {
    setOther(null);
    if (second && !uploaded.value[second]) api.picture(second).then(setOther, () => undefined);
  }, [second]);
  const run = async () => {
    if (!second) return;
    const made = await attempt(() => api.create({
      request: { kind: "interpolate", frames: frames ?? 7 },
      model: modelNamed(picture.model)?.name,
      sources: { first: picture.id, last: second },
      previews: settings.value.previews,
    }));
    if (made) setJob(made);
  };
  useKeys({ "ctrl+enter": () => (second ? run() : false) });
  return (
    <div class="place path">
      <Back picture={picture} title={words.blendHeading} lead={words.blendLead} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <div class="pair">
          <img class="path-source" src={thumbnailOf(picture.id, 256)} alt={altOf(picture)} />
          {second && (uploaded.value[second] || other)
            ? <img class="path-source" src={uploaded.value[second] ?? thumbnailOf(second, 256)} alt={other ? altOf(other) : words.second} />
            : <button type="button" class="path-source blank" onClick={() => setChoosing(true)}><Icon name="plus" />{words.choose}</button>}
        </div>
        <div class="path-fields">
          {second && <Button onClick={() => setChoosing(true)}>{words.chooseOther}</Button>}
          <NumberField label={words.frames} value={frames} min={2} max={24} onChange={setFrames} />
          <Button look="primary" type="submit" why={refusal("interpolate", picture.model)} disabled={!second}>{words.run}</Button>
        </div>
      </form>
      {second && job ? <Slider key={job.id} job={job} /> : <Before picture={picture} />}
      {choosing && (
        <Picker onClose={() => setChoosing(false)} onChoose={(chosen: Chosen) => go("image", picture.id, "blend", chosen.id)} />
      )}
    </div>
  );
}
