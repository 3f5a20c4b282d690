// Which words fit a picture best, by the model's own CLIP.
import { useId, useState } from "preact/hooks";
import { api } from "../api.ts";
import { listOf } from "../brief.ts";
import { announce, attempt } from "../store.ts";
import { text } from "../text.ts";
import type { Match, Picture } from "../types.ts";
import { Button, Field } from "./controls.tsx";

const words = text.captions;
const SHOWN = 12;

export function Captions({ picture }: { picture: Picture }) {
  const [given, setGiven] = useState("");
  const [found, setFound] = useState<Match[] | null>(null);
  const [busy, setBusy] = useState(false);
  const id = useId();
  const compare = async () => {
    setBusy(true);
    const made = await attempt(() => api.captions(picture.id, listOf(given), picture.model));
    setBusy(false);
    if (!made) return;
    setFound(made);
    if (made[0]) announce(words.best(made[0].caption));
  };
  return (
    <section class="captions" aria-labelledby={id}>
      <h2 id={id}>{words.heading}</h2>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void compare();
        }}
      >
        <Field label={words.given} hint={words.hint} wide>
          {(field, hint) => (
            <textarea
              id={field} data-autofocus rows={3} value={given} aria-describedby={hint} maxLength={100_000}
              onInput={(event) => setGiven(event.currentTarget.value)}
            />
          )}
        </Field>
        <Button type="submit" icon="search" disabled={busy}>{busy ? text.common.loading : words.compare}</Button>
      </form>
      {found && (
        <ol>
          {found.slice(0, SHOWN).map((one) => (
            <li key={one.caption}>
              <span>{one.caption}</span>
              <meter min={0} max={1} value={one.probability} aria-label={one.caption} />
              <span class="muted">{words.share(one.probability)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
