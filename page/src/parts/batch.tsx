// A list of prompts, pasted or from a file: one job for each, with the options of the form.
import { useRef, useState } from "preact/hooks";
import { api } from "../api.ts";
import { listOf } from "../brief.ts";
import { draft, requestOf, settings } from "../settings.ts";
import { complain, model, putJob, refusal, toast } from "../store.ts";
import { text } from "../text.ts";
import { Button, Field } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";

const words = text.batch;
const MOST = 500;
const MOST_BYTES = 1_000_000;

export function Batch({ onClose }: { onClose: () => void }) {
  const [given, setGiven] = useState("");
  const [sent, setSent] = useState<number | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const stop = useRef(false);
  const prompts = listOf(given);
  const n = draft.value.n ?? settings.value.n;
  const problem = refusal("generate") ?? (!prompts.length ? words.none : prompts.length > MOST ? words.tooMany(MOST) : null);
  const read = async (file: File) => {
    if (file.size > MOST_BYTES) return toast(words.tooLarge, { bad: true });
    setGiven(await file.text());
  };
  const run = async () => {
    if (problem || sent !== null) return;
    stop.current = false;
    let done = 0;
    try {
      for (const prompt of prompts) {
        if (stop.current) break;
        setSent(done);
        putJob(await api.create({
          request: requestOf({ ...draft.value, prompt, start: null }, n),
          ...(model.value && draft.value.model ? { model: model.value.name } : {}),
          previews: settings.value.previews,
        }));
        done += 1;
      }
      toast(words.queued(done));
      onClose();
    } catch (error) {
      complain(error);
      // What the server took is not sent again.
      setGiven(prompts.slice(done).join("\n"));
      if (done) toast(words.queuedOf(done, prompts.length), { bad: true });
    }
    setSent(null);
  };
  return (
    <Dialog
      title={words.heading} wide
      onClose={() => {
        stop.current = true;
        onClose();
      }}
    >
      <form
        class="batch"
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <Field label={words.label} hint={words.hint} wide>
          {(id, hint) => (
            <textarea
              id={id} rows={8} value={given} aria-describedby={hint} placeholder={text.examples.slice(0, 3).join("\n")}
              onInput={(event) => setGiven(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void run();
              }}
            />
          )}
        </Field>
        <p class="muted" role="status">
          {sent !== null ? text.job.progress(sent, prompts.length) : problem ?? words.amount(prompts.length, n)}
        </p>
        <footer class="actions">
          <Button look="quiet" icon="folder" onClick={() => input.current?.click()}>{words.fromFile}</Button>
          <input
            ref={input} type="file" accept=".txt,.csv,.md,text/plain" hidden tabIndex={-1} aria-hidden="true"
            onChange={(event) => {
              const file = event.currentTarget.files?.[0];
              event.currentTarget.value = "";
              if (file) void read(file);
            }}
          />
          <Button look="primary" type="submit" why={problem} disabled={sent !== null}>{words.run}</Button>
        </footer>
      </form>
    </Dialog>
  );
}
