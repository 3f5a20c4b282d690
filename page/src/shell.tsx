// What surrounds the places: their list, messages, dialogs, and keys that work everywhere.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, keyWanted } from "./api.ts";
import { typing, useKeys } from "./keys.ts";
import { Button, Field } from "./parts/controls.tsx";
import { Dialog } from "./parts/dialog.tsx";
import { DropTarget } from "./parts/drop.tsx";
import { Help, helpOpen } from "./parts/help.tsx";
import { Icon, Mark } from "./parts/icons.tsx";
import { go, link, route } from "./route.ts";
import { set, settings } from "./settings.ts";
import { announcement, connected, dismiss, isActive, jobs, toasts } from "./store.ts";
import { text } from "./text.ts";

const places = [
  ["create", "spark", text.nav.create],
  ["library", "grid", text.nav.library],
  ["editor", "brush", text.nav.editor],
  ["queue", "list", text.nav.queue],
] as const;

const themes = { system: ["light", "half"], light: ["dark", "sun"], dark: ["system", "moon"] } as const;

function Navigation() {
  const here = route.value.place;
  const active = [...jobs.value.values()].filter(isActive).length;
  return (
    <nav aria-label={text.nav.label}>
      <ul>
        {places.map(([place, icon, name]) => (
          <li key={place}>
            <a href={link(place)} aria-current={here === place ? "page" : undefined}>
              <Icon name={icon} />
              <span>{name}</span>
              {place === "queue" && active > 0 && <span class="count">{active}</span>}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function Toasts() {
  return (
    <section class="toasts" aria-label={text.nav.messages}>
      {toasts.value.map((one) => (
        <div key={one.id} class={`toast ${one.bad ? "bad" : ""}`}>
          <p>{one.message}</p>
          {one.undo && (
            <Button
              small look="quiet" icon="undo"
              onClick={() => {
                dismiss(one.id);
                void one.undo?.();
              }}
            >
              {text.common.undo}
            </Button>
          )}
          <Button small look="quiet" icon="close" label={text.common.dismiss} onClick={() => dismiss(one.id)} />
        </div>
      ))}
    </section>
  );
}

function Login() {
  const [key, setKey] = useState("");
  const [problem, setProblem] = useState("");
  if (!keyWanted.value) return null;
  return (
    <Dialog title={text.login.title}>
      <form
        onSubmit={async (event) => {
          event.preventDefault();
          try {
            await api.login(key);
            location.reload();
          } catch (error) {
            setProblem((error as Error).message);
          }
        }}
      >
        <p class="muted">{text.login.lead}</p>
        <Field label={text.login.key} wide>
          {(id) => (
            <input
              id={id} type="password" autoComplete="current-password" required value={key}
              onInput={(event) => setKey(event.currentTarget.value)}
            />
          )}
        </Field>
        {problem && <p class="problem" role="alert">{problem}</p>}
        <footer class="actions"><Button look="primary" type="submit">{text.login.enter}</Button></footer>
      </form>
    </Dialog>
  );
}

/** "g" and a letter go to a place. */
function useGo(): void {
  const armed = useRef(-Infinity);
  const to = (place: string) => () => {
    if (performance.now() - armed.current > 1500) return false;
    armed.current = -Infinity;
    go(place);
    return true;
  };
  useKeys({
    "?": () => (helpOpen.value = true),
    g: () => (armed.current = performance.now()),
    c: to("create"), l: to("library"), q: to("queue"),
    "/": () => document.querySelector<HTMLElement>("[data-words]")?.focus(),
  });
  // "e" is a key of the editor and of pictures as well; after "g" it is a place.
  useEffect(() => {
    const early = (event: KeyboardEvent) => {
      if (event.key !== "e" || performance.now() - armed.current > 1500 || typing(event.target)) return;
      armed.current = -Infinity;
      event.preventDefault();
      event.stopPropagation();
      go("editor");
    };
    addEventListener("keydown", early, true);
    return () => removeEventListener("keydown", early, true);
  }, []);
}

export function Shell({ children }: { children: ComponentChildren }) {
  useGo();
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const here = `${route.value.place}/${route.value.rest[0] ?? ""}`;
  useEffect(() => {
    // A new place is read from its heading on; the first one leaves the focus to the browser.
    if (!first.current) {
      scrollTo({ top: 0, behavior: "instant" });
      (main.current?.querySelector<HTMLElement>("[data-autofocus]") ?? main.current)?.focus({ preventScroll: true });
    }
    first.current = false;
  }, [here]);
  const [nextTheme, themeIcon] = themes[settings.value.theme];
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        main.current?.focus();
      }}>{text.nav.skip}</a>
      <header class="masthead">
        <a class="brand" href={link("create")} aria-label={text.name}><Mark /><span>{text.name}</span></a>
        <Navigation />
        <div class="masthead-actions">
          <Button look="quiet" icon={themeIcon} label={text.nav.theme[settings.value.theme]} onClick={() => set({ theme: nextTheme })} />
          <Button look="quiet" icon="help" label={text.nav.help} onClick={() => (helpOpen.value = true)} />
        </div>
      </header>
      {!connected.value && !keyWanted.value && <p class="banner" role="alert">{text.errors.lost}</p>}
      <main ref={main} id="content" tabIndex={-1}>{children}</main>
      <Toasts />
      <div class="hidden" role="status" aria-live="polite">{announcement.value}</div>
      <DropTarget />
      <Help />
      <Login />
    </>
  );
}
