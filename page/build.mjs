// Builds the page: `node build.mjs [FOLDER]`. The default folder is the one that the Python package ships.
//
// The names of script and style sheet hold a hash of their content, so that browsers may keep them for ever. `build.json`
// holds the digest of the sources; tests/serve/page/test_built.py compares it, and rebuilds where npm is installed.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "../src/unclip/serve/page/files"));

/** SHA-256 of the sources: for each file, in the order of paths, "PATH SHA256\n". */
function sourceDigest() {
  const files = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"].map((name) => join(here, name));
  for (const entry of readdirSync(join(here, "src"), { recursive: true, withFileTypes: true }))
    if (entry.isFile()) files.push(join(entry.parentPath ?? entry.path, entry.name));
  const lines = files.map((file) => {
    const name = relative(here, file).split(sep).join("/");
    return `${name} ${createHash("sha256").update(readFileSync(file)).digest("hex")}\n`;
  });
  return createHash("sha256").update(lines.sort().join("")).digest("hex");
}

const hash = (content) => createHash("sha256").update(content).digest("hex").slice(0, 12);

const result = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx", "page-style": "src/styles/all.css" },
  outdir: "out",
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  target: ["chrome123", "firefox121", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "warning",
});

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
const write = (name, content) => (writeFileSync(join(target, name), content), name);
const output = (suffix) => Buffer.from(result.outputFiles.find((file) => file.path.endsWith(suffix)).contents);

const script = output(".js");
const style = output(".css");
const icon = readFileSync(join(here, "src/icon.svg"));
const names = {
  script: write(`page-${hash(script)}.js`, script),
  style: write(`page-${hash(style)}.css`, style),
  icon: write(`icon-${hash(icon)}.svg`, icon),
};
const html = readFileSync(join(here, "src/index.html"), "utf8")
  .replace("{script}", `assets/${names.script}`)
  .replace("{style}", `assets/${names.style}`)
  .replace("{icon}", `assets/${names.icon}`);
write("index.html", html);

const notice = ["preact", "@preact/signals", "@preact/signals-core"].map((name) => {
  const folder = join(here, "node_modules", name);
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return `${name} ${version}\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
});
write("licences.txt", `The script of this page holds these packages:\n\n${notice.join("\n\n")}`);
write("build.json", JSON.stringify({ source: sourceDigest() }, null, 1) + "\n");
