"""Our own API: what the server offers, how it is, and the endpoints of monitors."""

import importlib.metadata
import time
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from unclip.errors import ModelError
from unclip.serve.errors import Unavailable
from unclip.serve.events import queue_view
from unclip.serve.http import Call, json_route


def config(call: Call) -> dict[str, Any]:
    """Models with their operations, and the server's limits."""
    settings = call.service.settings
    models = []
    for name in call.service.catalog.names:
        try:
            models.append(call.service.catalog.describe(name))
        except (ModelError, FileNotFoundError) as error:
            models.append({"name": name, "error": str(error)})
    return {
        "version": importlib.metadata.version("unclip"),
        "models": models,
        "default_model": settings.default_model,
        "limits": {
            "max_n": settings.max_n,
            "max_side": settings.max_side,
            "max_upload": settings.max_upload,
            "max_queue": settings.max_queue,
        },
        "key_required": call.service.key_required,
    }


def schema(call: Call) -> dict[str, Any]:
    """JSON Schema of every kind of request."""
    from unclip.generate.schema import schema

    return schema()


def healthz(call: Call) -> dict[str, Any]:
    """The process answers."""
    return {"status": "ok"}


def readyz(call: Call) -> Response:
    """Whether jobs are taken and drawn: database and store are written, a worker is there, and the server is not ending."""
    checks = readiness(call)
    ready = all(state == "ok" for state in checks.values())
    status = 200 if ready else 503
    headers = {} if ready else {"Retry-After": "5"}
    return JSONResponse(
        {"status": "ready" if ready else "not ready", "checks": checks}, status_code=status, headers=headers
    )


def readiness(call: Call) -> dict[str, str]:
    """What each part of the server says: "ok", or what is wrong."""
    service = call.service
    checks = {"server": "ending" if service.draining.is_set() else "ok"}
    try:
        with service.database.read() as connection:
            queue = queue_view(connection)
        service.database.check()
        checks["database"] = "ok"
        full = queue["waiting"] >= service.settings.max_queue
        checks["queue"] = "full" if full else "ok"
        troubled = [one["message"] for one in queue["workers"] if one["message"]]
        checks["workers"] = troubled[0] if troubled else "ok" if queue["workers"] else "there is no worker"
    except Unavailable as error:
        checks["database"] = error.message
    try:
        service.store.check()
        checks["store"] = "ok"
    except Unavailable as error:
        checks["store"] = error.message
    return checks


def metrics(call: Call) -> Response:
    """Measurements for Prometheus."""
    from prometheus_client import CONTENT_TYPE_LATEST

    from unclip.serve.metrics import exposition

    return Response(exposition(call.service), headers={"Content-Type": CONTENT_TYPE_LATEST})


def system(call: Call) -> dict[str, Any]:
    """Models, memory, devices, places and age of the server."""
    service = call.service
    with service.database.read() as connection:
        queue = queue_view(connection)
    loaded: dict[str, int] = {}
    for worker in queue["workers"]:
        loaded |= worker["loaded"]
    names = service.catalog.names
    return {
        "version": importlib.metadata.version("unclip"),
        "uptime": round(time.monotonic() - service.started, 1),
        "models": [
            {"name": name, "state": "loaded" if name in loaded else "absent", "bytes": loaded.get(name, 0)}
            for name in names
        ],
        "device": ", ".join(dict.fromkeys(one["device"] for one in queue["workers"])) or None,
        "memory": _memory(),
        "workers": queue["workers"],
        "database": service.database.shown,
        "store": service.store.shown,
        "checks": readiness(call),
        "log_prompts": service.settings.log_prompts,
    }


def _memory() -> dict[str, int | None]:
    """Bytes of this machine's memory, and of those that are free; None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.strip()}
        return {"total": found.get("MemTotal"), "free": found.get("MemAvailable")}
    except (OSError, ValueError, IndexError):
        return {"total": None, "free": None}


def verify(call: Call) -> dict[str, Any]:
    """Whether a model's files match their hashes."""
    from unclip.checkpoints.manifest import MANIFEST, verify
    from unclip.formats.registry import resolve

    name = call.service.catalog.resolve(str(call.path["name"]))
    folder = resolve(call.service.catalog.models[name])
    if not (folder / MANIFEST).is_file():
        return {"name": name, "ok": None, "message": "the model has no hashes to compare with"}
    try:
        return {"name": name, "ok": True, "message": f"{len(verify(folder).files)} files match their hashes"}
    except ModelError as error:
        return {"name": name, "ok": False, "message": str(error)}


def routes() -> list[BaseRoute]:
    """Routes of the server itself."""
    return [
        json_route("/api/config", GET=config),
        json_route("/api/schema", GET=schema),
        json_route("/api/system", GET=system),
        json_route("/api/models/{name:path}/verify", POST=verify),
        json_route("/metrics", GET=metrics),
        json_route("/healthz", GET=healthz),
        json_route("/readyz", GET=readyz),
    ]
