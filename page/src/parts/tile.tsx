// A picture in a grid: finished, being drawn, or waiting for its turn.
import { thumbnailOf } from "../api.ts";
import { brief } from "../brief.ts";
import { link } from "../route.ts";
import { cancelPicture, isActive, live, titleOf } from "../store.ts";
import { text } from "../text.ts";
import type { Job, Picture } from "../types.ts";
import { Button } from "./controls.tsx";

export const altOf = (picture: Picture): string =>
  text.image.alt(brief(picture.title ?? picture.prompt ?? ""), picture.kind);

export function Thumbnail({ picture, side = 512, lazy = true }: { picture: Picture; side?: number; lazy?: boolean }) {
  return (
    <img
      src={thumbnailOf(picture.id, side)} alt={altOf(picture)} width={picture.width} height={picture.height}
      loading={lazy ? "lazy" : "eager"} decoding="async" draggable={false}
    />
  );
}

/** Link to a finished picture. */
export function PictureLink({ picture, side }: { picture: Picture; side?: number }) {
  return (
    <a class="tile" href={link("image", picture.id)}>
      <Thumbnail picture={picture} side={side} />
    </a>
  );
}

/** Picture `index` of a job, in whatever state it is. */
export function JobTile({ job, index }: { job: Job; index: number }) {
  const picture = job.pictures[index];
  if (picture && !picture.deleted) return <PictureLink picture={picture} />;
  const state = live.value[job.id]?.[index];
  const name = text.job.picture(index + 1);
  const cancelled = state?.cancelled || job.states[index] === "cancelled";
  if (!isActive(job) || cancelled || picture)
    return <div class="tile empty"><span>{cancelled ? text.job.cancelled : text.job.missing}</span></div>;
  const percent = state ? Math.round(100 * state.fraction) : 0;
  return (
    <div class={`tile live ${state ? "started" : ""}`} data-stage={state?.stage}>
      {state?.image && <img src={state.image} alt="" draggable={false} />}
      {state?.stage && <span class="stage-name">{text.job.stages[state.stage] ?? state.stage}</span>}
      <div
        class="bar" role="progressbar" aria-label={state ? text.job.drawing(index + 1, percent) : text.job.queued(index + 1)}
        aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}
      >
        <div style={{ transform: `scaleX(${percent / 100})` }} />
      </div>
      {job.n > 1 && (
        <Button
          icon="close" look="over" small label={text.job.cancelThis(index + 1)} class="tile-cancel"
          onClick={() => cancelPicture(job, index)}
        />
      )}
      <span class="hidden">{`${name}, ${titleOf(job)}`}</span>
    </div>
  );
}
