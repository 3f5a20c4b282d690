// The Node client, versions 4 and 7: files as streams and buffers, streams of events, errors, retries.
import fs from "node:fs";

const [name, folder, limitedUrl, streams] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(name);
const client = new OpenAI();
const found = {};

const made = await client.images.generate({ model: "dall-e-2", prompt: "a red apple", n: 2, size: "256x256" });
found.count = made.data.length;
found.created = made.created;
const fetched = await fetch(made.data[0].url);
found.url = Buffer.from(await fetched.arrayBuffer()).toString("base64");
found.request_id = made._request_id;

const picture = `${folder}/picture.png`;
const mask = `${folder}/mask.png`;
const size = "256x256";
const response_format = "b64_json";
const inputs = {
  stream: () => fs.createReadStream(picture),
  buffer: () => toFile(fs.readFileSync(picture), "picture.png", { type: "image/png" }),
  untyped: () => toFile(fs.readFileSync(picture), "picture"),
};
found.variations = {};
for (const [kind, open] of Object.entries(inputs)) {
  const answer = await client.images.createVariation({ image: await open(), n: 1, size, response_format });
  found.variations[kind] = answer.data[0].b64_json;
}
const edited = await client.images.edit({
  model: "dall-e-2",
  image: fs.createReadStream(picture),
  mask: fs.createReadStream(mask),
  prompt: "a red apple on a table",
  size,
  response_format,
});
found.edit = edited.data[0].b64_json;

const { data, response } = await client.images.generate({ prompt: "a blue cat", size }).withResponse();
found.raw = { count: data.data.length, id: response.headers.get("x-request-id") };
found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);

if (streams === "stream") {
  const events = await client.images.generate({
    model: "dall-e-2", prompt: "a red apple", size, stream: true, partial_images: 2,
  });
  found.stream = [];
  for await (const event of events) found.stream.push(event.type);
  const stopped = await client.images.generate({ model: "dall-e-2", prompt: "a red apple", stream: true });
  stopped.controller.abort();
}

found.errors = {};
const calls = {
  long: () => client.images.generate({ prompt: "x".repeat(1192) }),
  size: () => client.images.generate({ prompt: "x", size: "300x300" }),
  opaque: () => client.images.edit({ image: fs.createReadStream(`${folder}/opaque.png`), prompt: "x" }),
  text: async () => client.images.createVariation({ image: await toFile(Buffer.from("none"), "a.png") }),
  model: () => client.images.generate({ prompt: "x", model: "dall-e-3" }),
  key: () => new OpenAI({ apiKey: "sk-wrong" }).images.generate({ prompt: "x" }),
};
for (const [kind, call] of Object.entries(calls)) {
  try {
    await call();
  } catch (error) {
    found.errors[kind] = {
      class: error.constructor.name,
      status: error.status,
      code: error.code,
      param: error.param,
      type: error.type,
      message: error.error?.message,
    };
  }
}

const limited = new OpenAI({ baseURL: limitedUrl, maxRetries: 3 });
const began = performance.now();
for (let i = 0; i < 2; i++) await limited.images.generate({ prompt: "x", size });
found.retried = (performance.now() - began) / 1000;
console.log(JSON.stringify(found));
