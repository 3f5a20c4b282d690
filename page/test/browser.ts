// What modules ask of a browser while they load.
const kept = new Map<string, string>();
Object.assign(globalThis, {
  addEventListener: () => undefined,
  location: { hash: "" },
  localStorage: {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => void kept.set(name, value),
  },
  document: { documentElement: { dataset: {} }, baseURI: "http://127.0.0.1/", addEventListener: () => undefined },
});
