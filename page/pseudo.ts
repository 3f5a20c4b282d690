// A pseudo-locale: English that is longer, with accents and brackets, so that a text that is not in text.ts stands out.

const ACCENTS: Record<string, string> = { a: "á", e: "é", i: "í", o: "ö", u: "ü", c: "ç", n: "ñ", A: "Å", E: "É", O: "Ø", S: "Š" };

const changed = (words: string): string =>
  words.trim() ? `⟦${words.replace(/[aeioucnAEOS]/g, (letter) => ACCENTS[letter]!)}${"~".repeat(Math.ceil(words.length / 4))}⟧` : words;

/** Texts in the pseudo-locale; functions give such texts too. The name of the language stays, for dates. */
export function pseudo<T>(value: T, name = ""): T {
  if (typeof value === "string") return (name === "language" ? value : changed(value)) as T;
  if (typeof value === "function")
    return ((...given: unknown[]) => {
      const made: unknown = value(...given);
      return typeof made === "string" && !made.includes("⟦") ? changed(made) : made;
    }) as T;
  if (Array.isArray(value)) return value.map((one) => pseudo(one)) as T;
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, pseudo(one, key)])) as T;
  return value;
}
