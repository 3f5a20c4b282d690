// Writes the page's script with all texts in the pseudo-locale: `node pseudo.mjs FILE`, for a test.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const replaced = {
  name: "pseudo",
  setup({ onLoad }) {
    onLoad({ filter: /src[\\/]text\.ts$/ }, ({ path }) => ({
      loader: "ts",
      contents: `import { pseudo } from "../pseudo.ts";\n${readFileSync(path, "utf8").replace("export const text = {", "const plain = {")
        .replaceAll(/\btext\./g, "plain.").replace("typeof text", "typeof plain")}\nexport const text = pseudo(plain);\n`,
    }));
  },
};
await build({
  absWorkingDir: here,
  entryPoints: [join(here, "src/main.tsx")],
  outfile: process.argv[2],
  bundle: true,
  format: "esm",
  target: "chrome123",
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [replaced],
  logLevel: "warning",
});
