// Buttons and fields that all places share.
import type { ComponentChildren, TargetedMouseEvent } from "preact";
import { useId } from "preact/hooks";
import { Icon } from "./icons.tsx";

interface ButtonProps {
  children?: ComponentChildren;
  icon?: string;
  filled?: boolean;
  /** Name for assistive technology, and tooltip: needed where the button shows its icon alone. */
  label?: string;
  look?: "plain" | "primary" | "quiet" | "danger" | "over";
  pressed?: boolean;
  disabled?: boolean;
  /** Why it cannot be used: the button stays focusable and says so. */
  why?: string | null;
  shortcut?: string;
  small?: boolean;
  type?: "button" | "submit";
  onClick?: (event: TargetedMouseEvent<HTMLButtonElement>) => unknown;
  id?: string;
  expanded?: boolean;
  class?: string;
}

export function Button(props: ButtonProps) {
  const { children, icon, label, look = "plain", pressed, disabled, why, shortcut, small, type = "button" } = props;
  const blocked = Boolean(why);
  const title = why ?? label;
  return (
    <button
      id={props.id}
      type={type}
      class={`button ${look} ${children ? "" : "icon-only"} ${small ? "small" : ""} ${props.class ?? ""}`}
      aria-label={label}
      aria-pressed={pressed}
      aria-expanded={props.expanded}
      aria-disabled={blocked || undefined}
      aria-keyshortcuts={shortcut}
      title={title ?? undefined}
      disabled={disabled}
      onClick={(event) => (blocked ? event.preventDefault() : props.onClick?.(event))}
    >
      {icon && <Icon name={icon} filled={props.filled} />}
      {children && <span>{children}</span>}
    </button>
  );
}

interface FieldProps {
  label: string;
  hint?: string;
  wide?: boolean;
  children: (id: string, hintId: string | undefined) => ComponentChildren;
}

export function Field({ label, hint, wide, children }: FieldProps) {
  const id = useId();
  const hintId = hint ? `${id}-hint` : undefined;
  return (
    <div class={`field ${wide ? "wide" : ""}`}>
      <label for={id}>{label}</label>
      {children(id, hintId)}
      {hint && <small id={hintId}>{hint}</small>}
    </div>
  );
}

interface NumberProps {
  label: string;
  value: number | null;
  min: number;
  max: number;
  step?: number | "any";
  placeholder?: string;
  hint?: string;
  onChange: (value: number | null) => void;
}

/** A number that may be left open. */
export function NumberField({ label, value, min, max, step = 1, placeholder, hint, onChange }: NumberProps) {
  return (
    <Field label={label} hint={hint}>
      {(id, hintId) => (
        <input
          id={id} type="number" inputMode={step === 1 ? "numeric" : "decimal"} min={min} max={max} step={step}
          placeholder={placeholder} aria-describedby={hintId} value={value ?? ""}
          onInput={(event) => {
            const given = event.currentTarget;
            if (given.value === "") onChange(null);
            else if (Number.isFinite(given.valueAsNumber)) onChange(Math.min(Math.max(given.valueAsNumber, min), max));
          }}
        />
      )}
    </Field>
  );
}

interface SelectProps {
  label: string;
  value: string;
  choices: readonly (readonly [value: string, name: string])[];
  onChange: (value: string) => void;
}

export function Select({ label, value, choices, onChange }: SelectProps) {
  return (
    <Field label={label}>
      {(id) => (
        <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {choices.map(([choice, name]) => (
            <option key={choice} value={choice} selected={choice === value}>{name}</option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface SwitchProps {
  label: string;
  hint?: string;
  checked: boolean;
  onChange: (checked: boolean) => void;
}

export function Switch({ label, hint, checked, onChange }: SwitchProps) {
  const id = useId();
  return (
    <div class="switch">
      <input
        id={id} type="checkbox" role="switch" checked={checked} aria-describedby={hint ? `${id}-hint` : undefined}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      <label for={id}>{label}{hint && <small id={`${id}-hint`}>{hint}</small>}</label>
    </div>
  );
}

interface RadioProps<Value extends string> {
  label: string;
  value: Value;
  choices: readonly (readonly [value: Value, name: string])[];
  onChange: (value: Value) => void;
}

/** One of few choices, side by side. */
export function Choice<Value extends string>({ label, value, choices, onChange }: RadioProps<Value>) {
  const id = useId();
  return (
    <fieldset class="choice">
      <legend>{label}</legend>
      <div>
        {choices.map(([choice, name]) => (
          <label key={choice} class={choice === value ? "chosen" : ""}>
            <input type="radio" name={id} value={choice} checked={choice === value} onChange={() => onChange(choice)} />
            {name}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
