// Saves a canvas while it is worked on, and notices when another tab works on it too.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, ApiError } from "../api.ts";
import { text } from "../text.ts";
import { saveCanvas } from "./canvases.ts";
import type { Saved } from "./document.ts";

const SAVE_AFTER = 600;
const AGAIN_AFTER = 2000;

export interface Saving {
  status: "saved" | "saving" | "unsaved";
  /** Why the last attempt failed; null while all is well. */
  problem: string | null;
  /** Whether another tab saved this canvas meanwhile: nothing is saved here until somebody chooses. */
  conflict: boolean;
}

/**
 * Saves after each change, a moment later; what is still open is saved when the page is left.
 *
 * `updated` is the time of the state that was loaded. `reload` is called where another tab changed a canvas that is unchanged here.
 */
export function useAutosave(id: string, name: string, state: Saved, updated: string | undefined, reload: () => void): Saving {
  const [saving, setSaving] = useState<Saving>({ status: "saved", problem: null, conflict: false });
  const current = useRef({ name, state, seen: updated, open: false, busy: false, stopped: false });
  const first = useRef(true);
  const now = current.current;
  const key = JSON.stringify([name, state]);
  now.name = name;
  now.state = state;

  const conflict = () => {
    now.stopped = true;
    setSaving({ status: "unsaved", problem: null, conflict: true });
  };
  const save = async (): Promise<void> => {
    if (now.stopped || now.busy) return;
    now.busy = true;
    now.open = false;
    setSaving((before) => ({ ...before, status: "saving" }));
    let again = 0;
    try {
      now.seen = await saveCanvas(id, now.name, now.state, now.seen);
      setSaving({ status: now.open ? "unsaved" : "saved", problem: null, conflict: false });
    } catch (error) {
      now.open = true;
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 409) conflict();
      else {
        setSaving({ status: "unsaved", problem: text.editor.notSaved((error as Error).message), conflict: false });
        // What the server refuses is tried again with the next change; what it could not do now, soon.
        if (status === 0 || status >= 500 || status === 429) again = AGAIN_AFTER;
        else now.open = false;
      }
    } finally {
      now.busy = false;
    }
    if (now.open) setTimeout(() => now.open && void save(), again);
  };

  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    now.open = true;
    setSaving((before) => ({ ...before, status: "unsaved" }));
    const timer = setTimeout(save, SAVE_AFTER);
    return () => clearTimeout(timer);
  }, [key]);

  useEffect(() => {
    const leave = () => {
      if (now.open) void save();
    };
    const change = () => {
      if (document.hidden) return leave();
      if (now.busy || now.stopped) return;
      void api.canvas(id).then((found) => {
        if (found.updated === now.seen || now.busy) return;
        if (now.open) conflict();
        else {
          now.stopped = true;
          reload();
        }
      }, () => undefined);
    };
    addEventListener("pagehide", leave);
    document.addEventListener("visibilitychange", change);
    return () => {
      removeEventListener("pagehide", leave);
      document.removeEventListener("visibilitychange", change);
      leave();
    };
  }, []);
  return saving;
}
