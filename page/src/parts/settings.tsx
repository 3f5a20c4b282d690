import { api } from "../api.ts";
import { set, settings } from "../settings.ts";
import { attempt, config } from "../store.ts";
import { text } from "../text.ts";
import { Button, Choice, Switch } from "./controls.tsx";

const words = text.settings;

export function Settings() {
  const now = settings.value;
  const counts = [1, 2, 4, 6].filter((n) => n <= (config.value?.limits.max_n ?? 10));
  return (
    <section class="settings" aria-labelledby="settings-heading">
      <h2 id="settings-heading">{words.heading}</h2>
      <Choice
        label={words.theme} value={now.theme} onChange={(theme) => set({ theme })}
        choices={[["system", words.system], ["light", words.light], ["dark", words.dark]]}
      />
      <Choice
        label={words.motion} value={now.motion} onChange={(motion) => set({ motion })}
        choices={[["system", words.motionSystem], ["less", words.motionLess], ["full", words.motionFull]]}
      />
      <Choice
        label={words.n} value={String(now.n)} onChange={(n) => set({ n: Number(n) })}
        choices={counts.map((n) => [String(n), String(n)] as const)}
      />
      <Switch label={words.previews} checked={now.previews} onChange={(previews) => set({ previews })} />
      <Switch label={words.keys} hint={words.keysHint} checked={now.singleKeys} onChange={(singleKeys) => set({ singleKeys })} />
      {config.value?.key_required && (
        <Button
          small icon="lock"
          onClick={() => attempt(async () => {
            await api.logout();
            location.reload();
          })}
        >
          {words.signOut}
        </Button>
      )}
      <p class="muted">{words.here}</p>
    </section>
  );
}
