"""The client of 2023 to 2026 (openai 1, 2, 3): sync, async, raw answers, kinds of files, errors, retries, streams."""

import asyncio
import base64
import io
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import openai
from openai import AsyncOpenAI, OpenAI

folder, found = Path(sys.argv[1]), {}
address = os.environ["OPENAI_BASE_URL"]  # clients before 1.4 do not read it themselves
client = OpenAI(base_url=address)

response = client.images.generate(
    model="dall-e-2", prompt="a red apple", size="256x256", quality="standard", n=2
)
found["count"] = len(response.data)
found["created"] = response.created
with urllib.request.urlopen(response.data[0].url, timeout=30) as answer:
    found["url"] = base64.b64encode(answer.read()).decode()
# The oldest of these clients has no word for fields that it does not know, and keeps them all the same.
found["seed"] = response.model_dump()["data"][0].get("seed")

found["b64"] = (
    client.images.generate(
        prompt="a blue cat", size="256x256", response_format="b64_json", user="u", extra_body={"seed": 5}
    )
    .data[0]
    .b64_json
)

picture, mask = folder / "picture.png", folder / "mask.png"
found["edit"] = (
    client.images.edit(
        model="dall-e-2",
        image=open(picture, "rb"),
        mask=open(mask, "rb"),
        prompt="a red apple on a table",
        n=1,
        size="256x256",
        response_format="b64_json",
    )
    .data[0]
    .b64_json
)
files = {
    "bytes": picture.read_bytes(),
    "open": open(picture, "rb"),
    "stream": io.BytesIO(picture.read_bytes()),
    "path": picture,
    "tuple": ("picture.png", picture.read_bytes(), "image/png"),
}
found["variations"] = {
    name: client.images.create_variation(
        image=file, n=1, size="256x256", response_format="b64_json", extra_body={"seed": 5}
    )
    .data[0]
    .b64_json
    for name, file in files.items()
}

raw = client.images.with_raw_response.generate(prompt="a red apple", size="256x256")
found["raw"] = {
    "id": raw.headers.get("x-request-id"),
    "milliseconds": raw.headers.get("openai-processing-ms"),
    "version": raw.headers.get("openai-version"),
    "parsed": len(raw.parse().data),
}
found["request_id"] = getattr(response, "_request_id", None)
found["models"] = [model.id for model in client.models.list()]
found["model"] = client.models.retrieve("dall-e-2").id


async def later():
    async with AsyncOpenAI(base_url=address) as waiting:
        answers = await asyncio.gather(
            waiting.images.generate(prompt="two green cars", size="256x256", response_format="b64_json"),
            waiting.images.create_variation(
                image=picture.read_bytes(), size="256x256", response_format="b64_json"
            ),
        )
        found["async"] = [answer.data[0].b64_json for answer in answers]
        if "stream" in sys.argv:
            events = await waiting.images.generate(
                model="dall-e-2", prompt="a red apple", size="256x256", stream=True, partial_images=1
            )
            found["async_stream"] = [event.type async for event in events]


asyncio.run(later())

if "stream" in sys.argv:
    kinds = []
    with client.images.generate(
        model="dall-e-2", prompt="a red apple", size="256x256", stream=True, partial_images=2
    ) as events:
        for event in events:
            kinds.append([event.type, getattr(event, "partial_image_index", None), len(event.b64_json)])
            if event.type == "image_generation.completed":
                found["usage"] = event.usage.total_tokens
    found["stream"] = kinds
    found["edit_stream"] = [
        event.type
        for event in client.images.edit(
            model="dall-e-2", image=open(picture, "rb"), mask=open(mask, "rb"), prompt="x", stream=True
        )
    ]
    found["list"] = len(
        client.images.edit(image=[open(picture, "rb")], mask=open(mask, "rb"), prompt="x").data
    )

errors = {}
for name, call in {
    "long": lambda: client.images.generate(prompt="x" * 1192),
    "size": lambda: client.images.generate(prompt="x", size="300x300"),
    "opaque": lambda: client.images.edit(image=open(folder / "opaque.png", "rb"), prompt="x"),
    "text": lambda: client.images.create_variation(image=b"no picture"),
    "model": lambda: client.images.generate(prompt="x", model="dall-e-3"),
    "key": lambda: OpenAI(api_key="sk-wrong", base_url=address).images.generate(prompt="x"),
}.items():
    try:
        call()
    except openai.APIStatusError as error:
        errors[name] = {
            "class": type(error).__name__,
            "status": error.status_code,
            "id": error.response.headers.get("x-request-id"),
            # The oldest of these clients leaves its own attributes empty.
            **error.response.json()["error"],
        }
found["errors"] = errors

began = time.monotonic()
limited = OpenAI(base_url=sys.argv[2], max_retries=3)
for _ in range(2):
    limited.images.generate(prompt="x", size="256x256")
found["retried"] = time.monotonic() - began
hasty = OpenAI(base_url=sys.argv[2], max_retries=0)
for _ in range(20):
    try:
        hasty.images.generate(prompt="x" * 1192)
    except openai.BadRequestError:
        continue
    except openai.RateLimitError as error:
        found["limited"] = error.response.headers["retry-after"]
        break
print(json.dumps(found))
