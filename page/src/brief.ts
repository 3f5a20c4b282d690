// Words that may be thousands of characters long, where only their beginning has room: titles, labels, names.

const MOST = 160;

/** The first `most` characters, never half of one that takes two units of UTF-16, such as an emoji. */
export const first = (words: string, most: number): string =>
  words.length <= most ? words : Array.from(words.slice(0, 2 * most)).slice(0, most).join("");

/** The words on one line; with an ellipsis where they are longer than a title may be. */
export function brief(words: string, most = MOST): string {
  const line = first(words, 4 * most).replace(/\s+/gu, " ").trim();
  const found = first(line, most - 1);
  return line.length <= most ? line : `${found.trimEnd()}…`;
}
