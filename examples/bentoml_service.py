"""A BentoML service with two models, of which abkit picks one per user.

::

    BENTOML_DO_NOT_TRACK=True ABKIT_WORKSPACE=workspace bentoml serve bentoml_service:Iris
    curl -H 'Content-Type: application/json' 127.0.0.1:3000/predict \
        -d '{"user_id": "ann", "features": [6.1, 2.8, 4.7, 1.2]}'

With no experiment in the workspace everybody gets the logistic regression. This begins one:

    import abkit
    iris = abkit.Experiment.create("iris-model", {"logistic": 0.5, "tree": 0.5})
    abkit.Workspace("workspace").publish(iris)
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import abkit

IRIS = load_iris()
MODELS = {
    "logistic": LogisticRegression(max_iter=1_000).fit(IRIS.data, IRIS.target),
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0).fit(IRIS.data, IRIS.target),
}
ab = abkit.Client(os.environ.get("ABKIT_WORKSPACE", "workspace"))


@ab.route(
    "iris-model",
    unit="user_id",
    models=MODELS,
    default="logistic",
    latency="latency_ms",
    error="failed",
)
def species(model: Any, user_id: str, features: list[float]) -> str:
    """The species, by the model that the user was assigned; exposure and latency are logged."""
    del user_id  # it chose the model
    return str(IRIS.target_names[model.predict([features])[0]])


@bentoml.service(workers=2)
class Iris:
    """The service: each of its worker processes logs to files of its own."""

    @bentoml.api
    def predict(self, user_id: str, features: list[float]) -> dict[str, Any]:
        """Answer one request."""
        return {"species": species(user_id, features), "worker": os.getpid()}

    @bentoml.api
    def confirm(self, user_id: str, right: bool) -> bool:  # noqa: FBT001 - a field of the request
        """Record, at any later time, whether the answer was right."""
        return ab.record(user_id, "wrong", float(not right))

    @bentoml.on_shutdown
    def close(self) -> None:
        """Seal the log; nothing is lost where this is left out."""
        ab.close()
