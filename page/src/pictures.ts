// Deleting and restoring pictures, with the way back.
import { api } from "./api.ts";
import { attempt, jobs, libraryChanged, putJob, toast } from "./store.ts";
import { text } from "./text.ts";

function mark(ids: readonly string[], deleted: string | null): void {
  for (const job of jobs.value.values()) {
    if (!job.pictures.some((one) => one && ids.includes(one.id))) continue;
    putJob({ ...job, pictures: job.pictures.map((one) => (one && ids.includes(one.id) ? { ...one, deleted } : one)) });
  }
  libraryChanged.value += 1;
}

export async function restorePictures(ids: readonly string[]): Promise<void> {
  await attempt(() => Promise.all(ids.map((id) => api.restore(id))));
  mark(ids, null);
}

/** Deletes pictures and offers to undo it. Returns whether it was done. */
export async function removePictures(ids: readonly string[]): Promise<boolean> {
  if (!ids.length) return false;
  const done = await attempt(async () => {
    await Promise.all(ids.map((id) => api.remove(id)));
    return true;
  });
  if (!done) return false;
  mark(ids, new Date().toISOString());
  toast(text.library.removed(ids.length), { undo: () => restorePictures(ids) });
  return true;
}
