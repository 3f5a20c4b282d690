"""The client of 2022 and 2023 (openai 0.27): module-level calls, `openai.error`, `acreate`."""

import asyncio
import base64
import json
import os
import sys

import openai
import requests

openai.api_key = os.getenv("OPENAI_API_KEY")
folder, found = sys.argv[1], {}

response = openai.Image.create(prompt="a red apple", n=2, size="256x256")
image_url = response["data"][0]["url"]
found["url"] = base64.b64encode(requests.get(image_url, timeout=30).content).decode()
found["count"] = len(response.data)
found["created"] = response.created

response = openai.Image.create(
    prompt="a blue cat", n=1, size="256x256", response_format="b64_json", user="user-123"
)
found["b64"] = response["data"][0]["b64_json"]

response = openai.Image.create_edit(
    image=open(f"{folder}/picture.png", "rb"),
    mask=open(f"{folder}/mask.png", "rb"),
    prompt="a red apple on a table",
    n=1,
    size="256x256",
    response_format="b64_json",
)
found["edit"] = response["data"][0]["b64_json"]

with open(f"{folder}/picture.png", "rb") as file:
    response = openai.Image.create_variation(file.read(), n=2, size="256x256")
found["variations"] = [one["url"] for one in response["data"]]


async def later():
    answer = await openai.Image.acreate(prompt="two green cars", size="256x256", response_format="b64_json")
    return answer["data"][0]["b64_json"]


found["async"] = asyncio.run(later())
found["models"] = [model["id"] for model in openai.Model.list()["data"]]

errors = {}
for name, call in {
    "long": lambda: openai.Image.create(prompt="x" * 1192),
    "size": lambda: openai.Image.create(prompt="x", size="300x300"),
    "opaque": lambda: openai.Image.create_edit(image=open(f"{folder}/opaque.png", "rb"), prompt="x"),
    "text": lambda: openai.Image.create_variation(image=b"no picture"),
    "key": lambda: openai.Image.create(prompt="x", api_key="sk-wrong"),
}.items():
    try:
        call()
    except openai.error.OpenAIError as error:
        errors[name] = {
            "class": type(error).__name__,
            "status": error.http_status,
            "error": dict(error.error or {}),
            "id": error.headers.get("x-request-id"),
        }
found["errors"] = errors
print(json.dumps(found))
