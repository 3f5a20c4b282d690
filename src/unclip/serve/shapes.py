"""Answers of our own API, as types: what `views` and the routes give, and what the OpenAPI document says."""

from typing import Any, Literal

from typing_extensions import TypedDict

JobState = Literal["waiting", "running", "paused", "done", "failed", "cancelled"]
TaskState = Literal["waiting", "running", "done", "failed", "cancelled"]


class SourceOfPicture(TypedDict, total=False):
    """A picture that another was made from: drawn here, or given."""

    role: str
    picture: str
    upload: str


class Picture(TypedDict):
    """A drawn picture. `request` makes it again alone."""

    id: str
    job: str
    index: int
    kind: str
    width: int
    height: int
    bytes: int
    seed: int
    prompt: str | None
    model: str
    request: dict[str, Any] | None
    provenance: dict[str, Any]
    sources: list[SourceOfPicture]
    created: str
    seconds: float
    starred: bool
    title: str | None
    collections: list[str]
    deleted: str | None
    url: str
    thumbnail_url: str
    warnings: list[str]


class SourceOfJob(TypedDict):
    """A picture that a job takes, by its role in the request."""

    role: str
    id: str


class Job(TypedDict):
    """A job. `states`, `seeds`, `errors` and `pictures` have an entry for each of its pictures."""

    id: str
    state: JobState
    kind: str
    request: dict[str, Any]
    sources: list[SourceOfJob]
    model: str
    n: int
    done: int
    states: list[TaskState]
    seeds: list[int | None]
    errors: list[str | None]
    pictures: list[Picture | None]
    place: int | None
    eta_seconds: float | None
    priority: int
    previews: bool
    collection: str | None
    created: str
    started: str | None
    ended: str | None
    error: str | None
    warnings: list[str]


class Jobs(TypedDict):
    """A page of jobs; `next` is the cursor of the next one."""

    items: list[Job]
    next: str | None


class Pictures(TypedDict):
    """A page of pictures, and how many there are in all."""

    items: list[Picture]
    next: str | None
    total: int


class Upload(TypedDict):
    """A given picture; `request` is the one that its provenance records."""

    id: str
    width: int
    height: int
    has_alpha: bool
    bytes: int
    request: dict[str, Any] | None


class Lineage(TypedDict):
    """What a picture was made from, nearest first, and what was made from it."""

    ancestors: list[Picture]
    children: list[Picture]


class Commands(TypedDict):
    """A request in the forms in which people run it."""

    json: str
    cli: str
    python: str
    curl: str


class Collection(TypedDict):
    """A collection; `cover` is the picture that joined it last."""

    id: str
    name: str
    count: int
    cover: str | None
    created: str


class Collections(TypedDict):
    """All collections."""

    items: list[Collection]


class Canvas(TypedDict, total=False):
    """A canvas of the editor; lists leave `state` out."""

    id: str
    name: str
    width: int
    height: int
    base: str | None
    created: str
    updated: str
    state: Any


class Canvases(TypedDict):
    """All canvases, the latest first."""

    items: list[Canvas]


class WorkerState(TypedDict):
    """A worker; `message` says what it waits for."""

    id: str
    host: str
    device: str
    models: list[str]
    loaded: dict[str, int]
    state: str
    message: str | None


class QueueState(TypedDict):
    """The queue: numbers of pictures, and the workers."""

    paused: bool
    waiting: int
    running: int
    workers: list[WorkerState]


class Error(TypedDict):
    """What was wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(TypedDict):
    """An error, in the form of OpenAI's API."""

    error: Error
