// The Node client of 2022 and 2023 (openai 3, on axios): Configuration and OpenAIApi.
import fs from "node:fs";
import { createRequire } from "node:module";

const [name, folder] = process.argv.slice(2);
const { Configuration, OpenAIApi } = createRequire(import.meta.url)(name);
const configuration = new Configuration({
  apiKey: process.env.OPENAI_API_KEY,
  basePath: process.env.OPENAI_BASE_URL,
});
const openai = new OpenAIApi(configuration);
const found = {};

const made = await openai.createImage({ prompt: "a red apple", n: 2, size: "256x256" });
found.count = made.data.data.length;
const fetched = await fetch(made.data.data[0].url);
found.url = Buffer.from(await fetched.arrayBuffer()).toString("base64");

const edited = await openai.createImageEdit(
  fs.createReadStream(`${folder}/picture.png`),
  "a red apple on a table",
  fs.createReadStream(`${folder}/mask.png`),
  1,
  "256x256",
  "b64_json",
);
found.edit = edited.data.data[0].b64_json;
const varied = await openai.createImageVariation(
  fs.createReadStream(`${folder}/picture.png`), 1, "256x256", "b64_json",
);
found.variations = { stream: varied.data.data[0].b64_json };
try {
  await openai.createImage({ prompt: "x".repeat(1192) });
} catch (error) {
  found.error = { status: error.response.status, ...error.response.data.error };
}
console.log(JSON.stringify(found));
