"""Tables of the database: jobs and their pictures, the library, workers, and the events that clients follow.

A job is split into tasks, one per picture. A task's id is the id of its picture and the name of its file, so that a task
that is drawn a second time, after its worker was killed, replaces the first file. Times are seconds since 1970, UTC.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 1
"""Version of the tables; a program refuses a database of a later one."""

metadata = MetaData()

_ID = String(36)
_SERIAL = BigInteger().with_variant(Integer, "sqlite")


def _flag(name: str) -> "Column[bool]":
    return Column(name, Boolean, nullable=False, default=False)


meta = Table(
    "meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("request", Text, nullable=False),  # JSON, with its seed
    Column("sources", Text, nullable=False),  # JSON list of {role, id}
    Column("model", String(255), nullable=False),
    Column("n", Integer, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("position", Double, nullable=False),  # order among jobs of one priority
    Column("state", String(16), nullable=False),
    _flag("paused"),
    Column("previews", Boolean, nullable=False, default=True),
    Column("collection", _ID),
    Column("client", String(64)),  # which API key, for limits
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("error", Text),
    _flag("forgotten"),
    Index("jobs_by_state", "state", "position"),
    Index("jobs_by_time", "created"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job", _ID, ForeignKey("jobs.id"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("request", Text, nullable=False),  # JSON; makes this picture alone
    Column("group", String(64), nullable=False),  # tasks of one group can be drawn in one batch
    Column("state", String(16), nullable=False),
    Column("owner", _ID),  # the worker that draws it
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text),
    Index("tasks_of_job", "job", "index", unique=True),
    Index("tasks_by_state", "state"),
    Index("tasks_by_owner", "owner"),
)

live = Table(
    "live",
    metadata,
    Column("task", _ID, primary_key=True),
    Column("job", _ID, nullable=False),
    Column("index", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("fraction", Double, nullable=False),
    Column("preview", LargeBinary),  # PNG of the last step that has one
    Column("preview_version", Integer, nullable=False, default=0),
    Column("width", Integer),
    Column("height", Integer),
)

followed = Table(
    "followed",  # open jobs whose pictures somebody watches while they are drawn
    metadata,
    Column("job", _ID, primary_key=True),
)

pictures = Table(
    "pictures",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job", _ID, nullable=False, index=True),
    Column("index", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("model", String(255), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("prompt", Text),
    Column("words", Text, nullable=False, default=""),  # what the search looks at, in lower case
    Column("provenance", Text, nullable=False),  # JSON, as in the file
    Column("warnings", Text, nullable=False, default="[]"),
    Column("bytes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False, default=0.0),
    Column("created", Double, nullable=False),
    _flag("starred"),
    Column("title", Text),
    Column("deleted", Double),
    Index("pictures_by_time", "created"),
    Index("pictures_once", "job", "index", unique=True),
)

parents = Table(
    "parents",
    metadata,
    Column("picture", _ID, primary_key=True),
    Column("order", Integer, primary_key=True),
    Column("role", String(32), nullable=False),
    Column("source", _ID, nullable=False, index=True),  # id of a picture or of an upload
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    _flag("has_alpha"),
    Column("bytes", BigInteger, nullable=False),
    Column("request", Text),  # JSON of the request that the file's provenance records
    Column("created", Double, nullable=False),
)

collections = Table(
    "collections",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("created", Double, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("collection", _ID, primary_key=True),
    Column("picture", _ID, primary_key=True, index=True),
    Column("added", Double, nullable=False),
)

canvases = Table(
    "canvases",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("base", _ID),
    Column("state", Text, nullable=False),  # JSON, the editor's own
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("job", _ID, index=True),
    Column("type", String(16), nullable=False),
    Column("picture", _ID),
    Column("created", Double, nullable=False),
    sqlite_autoincrement=True,
)

workers = Table(
    "workers",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process", String(64), nullable=False),  # distinguishes a process from a later one with its number
    Column("models", Text, nullable=False),  # JSON list of names
    Column("device", String(64), nullable=False),
    Column("beat", BigInteger, nullable=False, default=0),
    Column("state", String(16), nullable=False),
    Column("message", Text),
    Column("loaded", Text, nullable=False, default="{}"),  # JSON: model -> bytes in memory
    Column("started", Double, nullable=False),
)
