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

/** The lines of a list, without empty ones, comments, marks of lists and quotes around a whole line. */
export const listOf = (words: string): string[] =>
  words.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/)
    .map((line) => line.trim().replace(/^(?:[-*•]|\d{1,4}[.)])\s+/, "").replace(/^"(.*)",?$/, "$1").replaceAll('""', '"').trim())
    .filter((line) => line && !line.startsWith("#"));
