// Options of the request that is being written, folded away until wanted. What is left open, the model decides.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { DRAFT, draft, settings, write } from "../settings.ts";
import { choicesOf, extentOf, nameOfSize, nearestSide, sizeNamed, sizeOf } from "../sizes.ts";
import { config, model, modelNamed } from "../store.ts";
import { text } from "../text.ts";
import type { ModelInfo, Size } from "../types.ts";
import { Button, Choice, Field, NumberField, Select, Switch } from "./controls.tsx";

const words = text.options;
const OTHER = "other";
const MOST_SEED = Number.MAX_SAFE_INTEGER;

export const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;

interface Choices {
  samplers: string[];
  priors: string[];
}

/** Names of samplers and priors, from the server's schema. */
function useChoices(): Choices {
  const [choices, setChoices] = useState<Choices>({ samplers: [], priors: [] });
  useEffect(() => {
    const enumOf = (field: any): string[] => field?.enum ?? field?.anyOf?.find((one: any) => one.enum)?.enum ?? [];
    api.schema().then(
      (schema) => setChoices({
        samplers: enumOf(schema.$defs?.DecoderSampling?.properties?.sampler),
        priors: enumOf(schema.$defs?.PriorSampling?.properties?.kind),
      }),
      () => undefined,
    );
  }, []);
  return choices;
}

const mostOf = (known: ModelInfo | null): number =>
  Math.min(config.value?.limits.max_side ?? 1024, known?.longest_side ?? Infinity);

/** Sides of squares that can be asked for. */
export function sizesOf(name?: string): number[] {
  const known = modelNamed(name);
  return (known?.sizes ?? []).filter((side) => side <= mostOf(known));
}

/** The size: one of the model's, or where it draws many any width and height that it can. */
function SizeFields({ known }: { known: ModelInfo }) {
  const [free, setFree] = useState(false);
  const size = draft.value.size;
  const most = mostOf(known);
  const choices = choicesOf(known, most).map(nameOfSize);
  const step = known.size_step ?? null;
  const named = size === null ? "" : nameOfSize(size);
  const other = step !== null && (free || (named !== "" && !choices.includes(named)));
  if (choices.length < 2 && step === null) return null;
  const [height, width] = extentOf(size ?? known.default_size ?? most);
  const choose = (name: string) => {
    setFree(name === OTHER);
    write({ size: name === OTHER ? size ?? known.default_size ?? null : sizeNamed(name) });
  };
  const side = (label: string, value: number, put: (side: number) => Size) => step !== null && (
    <Field label={label} hint={words.multiples(step, most)}>
      {(id, hintId) => (
        <input
          id={id} type="number" inputMode="numeric" min={step} max={most} step={step} aria-describedby={hintId} value={value}
          onChange={(event) => {
            const given = event.currentTarget;
            const near = Number.isFinite(given.valueAsNumber) ? nearestSide(given.valueAsNumber, step, most) : value;
            given.value = String(near);
            write({ size: put(near) });
          }}
        />
      )}
    </Field>
  );
  const open = known.default_size ? words.model_default(words.pixels(nameOfSize(known.default_size))) : text.common.auto;
  return (
    <>
      <Select
        label={words.size} value={other ? OTHER : named} onChange={choose}
        choices={[["", open], ...choices.map((one) => [one, words.pixels(one)] as const), ...(step === null ? [] : [[OTHER, words.otherSize] as const])]}
      />
      {other && side(words.width, width, (near) => sizeOf(height, near))}
      {other && side(words.height, height, (near) => sizeOf(near, width))}
    </>
  );
}

export function Options() {
  const { samplers, priors } = useChoices();
  const now = draft.value;
  const known = model.value;
  const models = config.value?.models ?? [];
  const most = Math.min(config.value?.limits.max_n ?? 10, 12);
  const fromModel = (stage: "prior" | "decoder", field: string): string => {
    const value = known?.default_sampling?.[stage]?.[field];
    return value === undefined || value === null ? text.common.auto : String(value);
  };
  const counts = [1, 2, 4, 6, 8, 12].filter((one) => one <= most);
  const open = (name: string): readonly [string, string] => ["", name || text.common.auto];
  return (
    <div class="options">
      {models.length > 1 && (
        <Select
          label={words.model} value={known?.name ?? ""} onChange={(name) => write({ model: name, size: null })}
          choices={models.map((one) => [one.name, one.title ?? one.name] as const)}
        />
      )}
      <Choice
        label={words.n} value={String(now.n ?? settings.value.n)} onChange={(n) => write({ n: Number(n) })}
        choices={counts.map((one) => [String(one), String(one)] as const)}
      />
      {known && <SizeFields key={known.name} known={known} />}
      <Field label={words.seed} hint={words.seedHint}>
        {(id, hintId) => (
          <div class="with-button">
            <input
              id={id} type="number" inputMode="numeric" min={0} max={MOST_SEED} step={1} placeholder={words.seedRandom}
              aria-describedby={hintId} value={now.locked ? now.seed ?? "" : ""}
              onInput={(event) => {
                const seed = event.currentTarget.valueAsNumber;
                const fits = Number.isInteger(seed) && seed >= 0 && seed <= MOST_SEED;
                write({ seed: fits ? seed : null, locked: fits });
              }}
            />
            <Button
              icon={now.locked ? "lock" : "unlock"} label={words.lock} pressed={now.locked}
              onClick={() => write(now.locked ? { locked: false } : { locked: true, seed: now.seed ?? randomSeed() })}
            />
          </div>
        )}
      </Field>
      <NumberField
        label={words.steps} value={now.steps} min={1} max={1000} placeholder={fromModel("decoder", "steps")}
        onChange={(steps) => write({ steps })}
      />
      <NumberField
        label={words.guidance} value={now.guidance} min={0} max={50} step="any" placeholder={fromModel("decoder", "guidance")}
        onChange={(guidance) => write({ guidance })}
      />
      <Select
        label={words.sampler} value={now.sampler} onChange={(sampler) => write({ sampler })}
        choices={[open(words.model_default(fromModel("decoder", "sampler"))), ...samplers.map((one) => [one, one] as const)]}
      />
      <Field label={words.negative} wide>
        {(id) => (
          <input
            id={id} type="text" placeholder={words.negativeHint} value={now.negative}
            onInput={(event) => write({ negative: event.currentTarget.value })}
          />
        )}
      </Field>
      {!now.start && priors.length > 0 && (
        <>
          <Select
            label={words.prior} value={now.priorKind} onChange={(priorKind) => write({ priorKind })}
            choices={[open(words.model_default(fromModel("prior", "kind"))),
              ...priors.map((one) => [one, (words.priorKinds as Record<string, string>)[one] ?? one] as const)]}
          />
          <NumberField
            label={words.priorSteps} value={now.priorSteps} min={1} max={1000} placeholder={fromModel("prior", "steps")}
            onChange={(priorSteps) => write({ priorSteps })}
          />
          <NumberField
            label={words.priorGuidance} value={now.priorGuidance} min={0} max={50} step="any"
            placeholder={fromModel("prior", "guidance")} onChange={(priorGuidance) => write({ priorGuidance })}
          />
          <NumberField
            label={words.candidates} hint={words.candidatesHint} value={now.candidates} min={1} max={256} placeholder={fromModel("prior", "candidates")}
            onChange={(candidates) => write({ candidates })}
          />
        </>
      )}
      <div class="options-end">
        <Switch label={words.quick} hint={words.quickHint} checked={now.quick} onChange={(quick) => write({ quick })} />
        <Button
          look="quiet" small icon="restore"
          onClick={() => write({ ...DRAFT, prompt: now.prompt, start: now.start, strength: now.strength })}
        >
          {words.reset}
        </Button>
      </div>
    </div>
  );
}
