"""A service with two models, of which abkit picks one per user. Copy this file.

gunicorn --preload --workers 2 --worker-class asgi app:app
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from models import train
from pydantic import BaseModel

import abkit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Before the fork, so that all workers share the models' memory. The client may be made here too:
# it holds no thread and no connection, and each worker logs to files of its own.
MODELS = train()
ab = abkit.Client(os.environ.get("ABKIT_WORKSPACE", "workspace"))


@ab.route(
    "job-model",
    unit="user_id",
    models=MODELS,
    default="forest",  # served while there is no experiment, and whenever anything is amiss
    latency="latency_ms",
    error="failed",
)
def predict(model: Any, user_id: str, features: list[float]) -> int:
    """Whether the user is employed, by the model that the user was assigned."""
    del user_id  # it chose the model
    return int(model.predict([features])[0])


class Question(BaseModel):
    """A request."""

    user_id: str
    features: list[float]


class Label(BaseModel):
    """What turned out to be true of an earlier answer."""

    user_id: str
    predicted: int
    employed: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Seal the log when a worker ends; nothing is lost where this is left out."""
    yield
    ab.close()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def answer(question: Question) -> dict[str, int]:
    """Answer one request; exposure, latency and failure are logged by the route."""
    return {"predicted": predict(question.user_id, question.features)}


@app.post("/label")
def label(known: Label) -> dict[str, bool]:
    """Record the outcome, which any worker may do, days later."""
    is_wrong = known.predicted != known.employed
    return {"recorded": ab.record(known.user_id, "wrong", float(is_wrong))}


@app.get("/health")
def health() -> dict[str, Any]:
    """What this worker knows: version and age of its configuration, events, losses."""
    ab.variant("job-model", "health")  # looks at the configuration, as a request would
    events = ab.health().events
    return {
        "worker": os.getpid(),
        "snapshot": asdict(ab.health().snapshot),
        "accepted": events.accepted,
        "dropped": sum(events.dropped.values()),
        "rejected": ab.health().rejected,
    }
