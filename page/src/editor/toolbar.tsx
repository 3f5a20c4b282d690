import { Button, Choice } from "../parts/controls.tsx";
import { text } from "../text.ts";
import type { Mode } from "./document.ts";
import type { Tool } from "./stage.tsx";

const words = text.editor;

interface ToolbarProps {
  mode: Mode;
  tool: Tool;
  size: number;
  most: number;
  canUndo: boolean;
  canRedo: boolean;
  canClear: boolean;
  onMode: (mode: Mode) => void;
  onTool: (tool: Tool) => void;
  onSize: (size: number) => void;
  onUndo: () => void;
  onRedo: () => void;
  onClear: () => void;
  onZoom: (factor: number) => void;
  onFit: () => void;
  hidden: boolean;
  onHide: (hide: boolean) => void;
}

const tools = [["brush", "brush", "b"], ["eraser", "eraser", "e"], ["lasso", "lasso", "a"], ["box", "box", "x"], ["pan", "hand", "h"]] as const;

export function Toolbar(props: ToolbarProps) {
  const { mode, tool } = props;
  return (
    <div class="toolbar" role="toolbar" aria-label={words.tools}>
      <Choice
        label={words.mode} value={mode} onChange={props.onMode} choices={[["repaint", words.repaint], ["extend", words.extend], ["frames", words.frames]]}
      />
      {mode === "repaint" && (
        <>
          <div class="group">
            {tools.map(([name, icon, key]) => (
              <Button
                key={name} look="quiet" icon={icon} label={words[name]} pressed={tool === name} shortcut={key}
                onClick={() => props.onTool(name)}
              />
            ))}
          </div>
          <label class="brush-size">
            <span class="hidden">{words.brushSize}</span>
            <input
              type="range" min={1} max={props.most} value={props.size} title={words.brushSize}
              onInput={(event) => props.onSize(event.currentTarget.valueAsNumber)}
            />
          </label>
        </>
      )}
      <div class="group">
        <Button look="quiet" icon="undo" label={words.undo} shortcut="Control+z" disabled={!props.canUndo} onClick={props.onUndo} />
        <Button look="quiet" icon="redo" label={words.redo} shortcut="Control+Shift+z" disabled={!props.canRedo} onClick={props.onRedo} />
        {mode === "repaint" && (
          <Button look="quiet" icon="trash" label={words.clear} disabled={!props.canClear} onClick={props.onClear} />
        )}
        {mode === "repaint" && (
          <Button
            look="quiet" icon="image" label={words.hideMarks} shortcut="m" pressed={props.hidden} disabled={!props.canClear}
            onClick={() => props.onHide(!props.hidden)}
          />
        )}
      </div>
      <div class="group">
        <Button look="quiet" icon="minus" label={words.zoomOut} shortcut="-" onClick={() => props.onZoom(0.8)} />
        <Button look="quiet" icon="plus" label={words.zoomIn} shortcut="+" onClick={() => props.onZoom(1.25)} />
        <Button look="quiet" icon="zoom" label={words.zoomFit} shortcut="0" onClick={props.onFit} />
      </div>
    </div>
  );
}
