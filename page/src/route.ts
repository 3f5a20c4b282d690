// Places have addresses: `#/image/ID` and so on. A hash needs nothing of the server, nor of a proxy before it.
import { computed, signal } from "@preact/signals";

export interface Route {
  place: string;
  /** Further parts of the address, decoded. */
  rest: string[];
}

export function parse(hash: string): Route {
  const [place = "", ...rest] = hash.replace(/^#?\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { place: place || "create", rest: rest.filter((part) => part !== "") };
}

export const link = (place: string, ...rest: string[]): string =>
  `#/${[place, ...rest].map(encodeURIComponent).join("/")}`;

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const route = computed(() => parse(hash.value));

export function go(place: string, ...rest: string[]): void {
  location.hash = link(place, ...rest);
}
