// Image: one picture, large, with everything that can be done with it, and how it was made.
import { useEffect, useState } from "preact/hooks";
import { api, fileOf } from "../api.ts";
import { first } from "../brief.ts";
import { newCanvas } from "../editor/canvases.ts";
import { useKeys } from "../keys.ts";
import { Captions } from "../parts/captions.tsx";
import { Button } from "../parts/controls.tsx";
import { Collect } from "../parts/collect.tsx";
import { Icon } from "../parts/icons.tsx";
import { JobCard } from "../parts/jobcard.tsx";
import { Lineage } from "../parts/lineage.tsx";
import { sizesOf } from "../parts/options.tsx";
import { Provenance } from "../parts/provenance.tsx";
import { altOf } from "../parts/tile.tsx";
import { removePictures } from "../pictures.ts";
import { go, link } from "../route.ts";
import { draftOf, draft, settings, write } from "../settings.ts";
import { attempt, changedPicture, jobs, libraryChanged, modelNamed, putJob, refusal, sortedJobs, toast } from "../store.ts";
import { text } from "../text.ts";
import type { Job, Picture, RequestBody } from "../types.ts";
import { Blend, Diff } from "./path.tsx";

const words = text.image;

/** The picture, kept up to date; null where there is none. */
export function usePicture(id: string): Picture | null | undefined {
  const [picture, setPicture] = useState<Picture | null | undefined>(undefined);
  useEffect(() => {
    let current = true;
    api.picture(id).then((found) => current && setPicture(found), () => current && setPicture(null));
    return () => {
      current = false;
    };
  }, [id, libraryChanged.value]);
  const changed = changedPicture.value;
  return picture && changed?.id === id ? { ...picture, ...changed } : picture;
}

const usesPicture = (job: Job, id: string): boolean => job.sources.some((one) => one.id === id);

function neighbours(picture: Picture): [Picture | undefined, Picture | undefined] {
  const others = sortedJobs.value.flatMap((job) => job.pictures).filter((one): one is Picture => one !== null && !one.deleted);
  const here = others.findIndex((one) => one.id === picture.id);
  return here < 0 ? [undefined, undefined] : [others[here - 1], others[here + 1]];
}

/** Puts everything of a picture's request into the form, its starting picture too. */
export function reuseAll(picture: Picture): void {
  const source = picture.sources.find((one) => one.picture);
  const takes = picture.kind === "redraw" || picture.kind === "vary";
  draft.value = {
    ...draftOf(picture.request, takes && source?.picture ? { id: source.picture, of: "picture", name: "" } : null),
    n: 1,
    model: picture.model,
  };
  go("create");
}

export function ImagePlace({ id, view, second }: { id: string; view?: string; second?: string }) {
  const picture = usePicture(id);
  if (picture === undefined) return <div class="place image" aria-busy="true" />;
  if (picture === null) return <div class="place"><h1>{text.nav.image}</h1><p>{text.errors.notFound}</p></div>;
  if (view === "diff") return <Diff picture={picture} />;
  if (view === "blend") return <Blend picture={picture} second={second} />;
  return <Single picture={picture} />;
}

function Single({ picture }: { picture: Picture }) {
  const { id } = picture;
  const cannot = (kind: string) => refusal(kind, picture.model);
  const [large, setLarge] = useState(false);
  const [reuse, setReuse] = useState(false);
  const [captions, setCaptions] = useState(false);
  const [previous, next] = neighbours(picture);
  const start = async (request: RequestBody) => {
    const model = modelNamed(picture.model)?.name;
    const job = await attempt(() => api.create({ request, model, sources: { picture: id }, previews: settings.value.previews }));
    if (!job) return;
    putJob(job);
    // What was asked for appears below, where it may be out of sight.
    requestAnimationFrame(() => document.querySelector(".image-below .job")?.scrollIntoView({ block: "nearest" }));
  };
  const vary = () => start({ kind: "vary", n: settings.value.n });
  const edit = async () => {
    const canvas = await attempt(() => newCanvas({
      picture: id, width: picture.width, height: picture.height, name: picture.prompt ?? "", prompt: picture.prompt ?? "",
    }));
    if (canvas) go("editor", canvas);
  };
  const star = () => attempt(async () => {
    changedPicture.value = await api.change(id, { starred: !picture.starred });
  });
  const remove = async () => {
    const target = next ?? previous;
    if (await removePictures([id])) location.hash = target ? link("image", target.id) : link("library");
  };
  const download = () => document.getElementById("download")?.click();
  useKeys({
    v: () => !cannot("vary") && vary(), e: () => !cannot("edit") && edit(), s: star, d: download, u: () => reuseAll(picture), t: () => setCaptions(!captions),
    delete: remove,
    arrowleft: () => (previous ? go("image", previous.id) : false),
    arrowright: () => (next ? go("image", next.id) : false),
    escape: () => (large ? setLarge(false) : history.back()),
  });
  const children = sortedJobs.value.filter((job) => usesPicture(job, id));
  const larger = sizesOf(picture.model).filter((side) => side > Math.max(picture.width, picture.height));
  const fileName = `${first(picture.title ?? picture.prompt ?? picture.kind, 60).replace(/[^\p{L}\p{N}]+/gu, "-")}.png`;
  return (
    <div class="place image">
      <div class="image-stage">
        <figure class={large ? "full" : ""}>
          <button
            type="button" class="image-zoom" aria-pressed={large} aria-label={large ? words.fit : words.enlarged}
            title={large ? words.fit : words.enlarged} onClick={() => setLarge(!large)}
          >
            <img src={fileOf(id)} alt={altOf(picture)} width={picture.width} height={picture.height} />
          </button>
        </figure>
        {previous && <a class="side previous" href={link("image", previous.id)} aria-label={words.previous} title={words.previous}><Icon name="left" /></a>}
        {next && <a class="side next" href={link("image", next.id)} aria-label={words.next} title={words.next}><Icon name="right" /></a>}
      </div>
      <div class="image-side">
        <header>
          <p class="muted kind">{text.kindOf(picture.kind)}</p>
          <h1>{altOf(picture)}</h1>
          {picture.deleted && <p class="note">{words.deletedHere}</p>}
        </header>
        <div class="image-main-actions" role="group" aria-label={words.actions}>
          <Button look="primary" icon="vary" shortcut="v" why={cannot("vary")} onClick={vary}>{words.variations}</Button>
          <Button icon="brush" shortcut="e" why={cannot("edit")} onClick={edit}>{words.edit}</Button>
          <Button icon="slider" why={cannot("text_diff")} onClick={() => go("image", id, "diff")}>{words.change}</Button>
          <Button icon="blend" why={cannot("interpolate")} onClick={() => go("image", id, "blend")}>{words.blend}</Button>
          <Button
            icon="spark" why={cannot("redraw")}
            onClick={() => {
              write({ start: { id, of: "picture", name: altOf(picture) }, prompt: picture.prompt ?? "" });
              go("create");
            }}
          >
            {words.redraw}
          </Button>
          {larger.map((side) => (
            <Button key={side} icon="zoom" why={cannot("upscale")} onClick={() => start({ kind: "upscale", size: side })}>
              {`${words.upscale} ${text.options.pixels(side)}`}
            </Button>
          ))}
        </div>
        <div class="image-more-actions">
          <Button look="quiet" icon="star" filled={picture.starred} shortcut="s" pressed={picture.starred} onClick={star}
            label={picture.starred ? words.unstar : words.star} />
          <a class="button quiet icon-only" id="download" href={fileOf(id)} download={fileName} aria-label={words.download}
            title={words.download} aria-keyshortcuts="d"><Icon name="download" /></a>
          <Collect pictures={[picture]} />
          <Button look="quiet" icon="restore" expanded={reuse} onClick={() => setReuse(!reuse)}>{words.reuse}</Button>
          <Button look="quiet" icon="text" expanded={captions} label={text.captions.heading} shortcut="t" onClick={() => setCaptions(!captions)} />
          {picture.deleted
            ? <Button look="quiet" icon="restore" onClick={() => attempt(async () => {
                await api.restore(id);
                libraryChanged.value += 1;
              })}>{words.restore}</Button>
            : <Button look="quiet" icon="trash" label={words.remove} shortcut="Delete" onClick={remove} />}
        </div>
        {reuse && (
          <div class="reuse" role="group" aria-label={words.reuse}>
            <Button small disabled={!picture.prompt} onClick={() => {
              write({ prompt: picture.prompt ?? "", start: null });
              go("create");
            }}>{words.reusePrompt}</Button>
            <Button small disabled={picture.seed === null} onClick={() => {
              write({ seed: picture.seed, locked: true });
              toast(words.seedKept(picture.seed!));
            }}>{words.reuseSeed}</Button>
            <Button small shortcut="u" onClick={() => reuseAll(picture)}>{words.reuseAll}</Button>
          </div>
        )}
        {picture.warnings?.map((warning) => <p class="note" key={warning}>{warning}</p>)}
        {captions && <Captions picture={picture} />}
        <Provenance picture={picture} />
      </div>
      <div class="image-below">
        {children.map((job) => jobs.value.has(job.id) && <JobCard key={job.id} job={job} />)}
        <Lineage picture={picture} />
      </div>
    </div>
  );
}

