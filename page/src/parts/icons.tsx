// Icons as elements, drawn on a grid of 24 with lines of 1.75.
import type { ComponentChildren } from "preact";

const shapes: Record<string, ComponentChildren> = {
  spark: <path d="M12 3.5l1.9 5.2a2.4 2.4 0 0 0 1.4 1.4l5.2 1.9-5.2 1.9a2.4 2.4 0 0 0-1.4 1.4L12 20.500l-1.9-5.2a2.4 2.4 0 0 0-1.4-1.4L3.500 12l5.2-1.9a2.400 2.400 0 0 0 1.4-1.4z" />,
  grid: <path d="M4.500 4.500h6v6h-6zM13.500 4.500h6v6h-6zM4.500 13.500h6v6h-6zM13.500 13.500h6v6h-6z" />,
  brush: <path d="M19.800 4.200c-1.300-1.300-9.600 6.400-10.800 9l1.800 1.800c2.600-1.200 10.300-9.500 9-10.800zM8.300 14.300c-2-.2-3.300 1-3.500 2.700-.1 1.100-.7 1.900-1.500 2.400 2.900 1.300 6.800.4 6.800-3.200" />,
  eraser: <path d="M8.500 19.500l-4.300-4.300a1.500 1.500 0 0 1 0-2.100l8.700-8.700a1.500 1.500 0 0 1 2.100 0l4.600 4.600a1.500 1.500 0 0 1 0 2.100l-8.400 8.400zM8 9.300l6.700 6.700M8.500 19.500h11" />,
  box: <path d="M5 5h14v14H5z" stroke-dasharray="3.200 2.400" />,
  hand: <path d="M8 12.500V6.800a1.400 1.400 0 0 1 2.800 0V11m0-5.600a1.400 1.400 0 0 1 2.800 0V11m0-4.200a1.400 1.400 0 0 1 2.800 0v5m0-2.500a1.400 1.400 0 0 1 2.800 0v4.500c0 4-2.500 6.700-6 6.700-3 0-4.600-1.400-6-4l-2.200-4.100c-.6-1.200.9-2.400 1.900-1.400l1.100 1.200" />,
  list: <path d="M9 6.500h11M9 12h11M9 17.500h11M4.500 6.500h.01M4.500 12h.01M4.500 17.500h.01" />,
  star: <path d="M12 3.800l2.500 5.200 5.700.8-4.100 4 1 5.700-5.100-2.700-5.100 2.700 1-5.700-4.100-4 5.700-.8z" />,
  download: <path d="M12 4v11m0 0l-4.300-4.300M12 15l4.300-4.300M5 19.500h14" />,
  trash: <path d="M4.500 6.500h15M9.500 6.500V4.200h5v2.300M6.500 6.500l.9 13h9.200l.9-13M10.200 10v6M13.800 10v6" />,
  restore: <path d="M4.500 5v5h5M5 10a7.500 7.500 0 1 1-.3 4" />,
  close: <path d="M6 6l12 12M18 6L6 18" />,
  check: <path d="M5 12.500l4.500 4.500L19 7.500" />,
  lock: <path d="M6.500 10.500h11v9h-11zM8.700 10.500V7.800a3.300 3.300 0 0 1 6.600 0v2.700" />,
  unlock: <path d="M6.500 10.500h11v9h-11zM8.700 10.500V7.800a3.300 3.300 0 0 1 6.400-1.200" />,
  dice: <path d="M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01" />,
  sun: <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.800v2M12 19.200v2M2.800 12h2M19.200 12h2M5.500 5.500l1.400 1.400M17.100 17.100l1.400 1.400M5.500 18.500l1.400-1.400M17.100 6.900l1.400-1.400" />,
  moon: <path d="M19.500 14.200A8 8 0 0 1 9.800 4.500a8 8 0 1 0 9.700 9.700z" />,
  half: <><path d="M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16z" /><path d="M12 4a8 8 0 0 1 0 16z" fill="currentColor" /></>,
  help: <path d="M9.300 9.300a2.800 2.800 0 1 1 4 2.500c-.9.500-1.300 1-1.300 2M12 17h.01M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17z" />,
  plus: <path d="M12 5v14M5 12h14" />,
  minus: <path d="M5 12h14" />,
  left: <path d="M14.500 5.500L8 12l6.500 6.500" />,
  right: <path d="M9.500 5.500L16 12l-6.500 6.500" />,
  up: <path d="M5.500 14.500L12 8l6.500 6.500" />,
  down: <path d="M5.500 9.500L12 16l6.500-6.500" />,
  undo: <path d="M8.500 5L4.500 9l4 4M4.500 9h9a5.500 5.500 0 0 1 0 11H9" />,
  redo: <path d="M15.500 5l4 4-4 4M19.500 9h-9a5.500 5.500 0 0 0 0 11H15" />,
  pause: <path d="M8.500 5.500v13M15.500 5.500v13" />,
  play: <path d="M8 5.500v13l10.500-6.500z" />,
  image: <path d="M4.500 5h15v14h-15zM4.500 16l4.500-4.500 4 4 2.500-2.500 4 4M15.500 9.200h.01" />,
  search: <path d="M10.800 4.500a6.300 6.300 0 1 0 0 12.600 6.300 6.300 0 0 0 0-12.600zM15.500 15.500l4.300 4.300" />,
  copy: <path d="M8.500 8.500h11v11h-11zM15.500 8.500v-4h-11v11h4" />,
  frame: <path d="M4.500 8V4.500H8M16 4.500h3.500V8M19.500 16v3.500H16M8 19.500H4.500V16M9 9h6v6H9z" />,
  slider: <path d="M4 8h9M17 8h3M15 5.800v4.400M4 16h3M11 16h9M9 13.800v4.400" />,
  blend: <path d="M9 6.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11zM15 6.500a5.500 5.500 0 1 1 0 11 5.500 5.500 0 0 1 0-11z" />,
  vary: <path d="M4.500 4.500h9v9h-9zM10.500 16.500v3h9v-9h-3" />,
  gear: <path d="M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 3.500l1 2.600 2.100.9 2.600-1.100 1.500 1.500-1.100 2.600.9 2.100 2.600 1v-.2V14l-2.600 1" />,
  zoom: <path d="M4.500 9V4.500H9M15 4.500h4.500V9M19.500 15v4.500H15M9 19.500H4.500V15" />,
  badge: <path d="M12 3.500l7 2.500v5.500c0 4.300-2.900 7.400-7 9-4.100-1.600-7-4.700-7-9V6zM8.800 12l2.200 2.200 4.200-4.400" />,
  folder: <path d="M3.800 6h6l2 2.200h8.400V19H3.800z" />,
};

export function Icon({ name, filled = false }: { name: keyof typeof shapes | string; filled?: boolean }) {
  return (
    <svg
      class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false"
      fill={filled ? "currentColor" : "none"} stroke="currentColor" stroke-width="1.75" stroke-linecap="round"
      stroke-linejoin="round"
    >
      {shapes[name]}
    </svg>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true" focusable="false">
      <g fill="none" stroke-linecap="round" stroke-width="3.200">
        <path d="M7 22V11a5 5 0 0 1 10 0v11" class="mark-a" />
        <path d="M17 22a4 4 0 0 0 8 0V8" class="mark-b" />
      </g>
    </svg>
  );
}
