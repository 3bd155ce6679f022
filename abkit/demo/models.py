"""The models of the demo and the Census rows that they learn from and answer.

Four fitted scikit-learn estimators predict whether a person is employed. All learn from 2015; the
demo serves 2016 to 2018. `Model.predict` answers one row, as a server does, with the estimator's
own `predict`: its latency and its failures are real.

Worker processes train their own copy and compare fingerprints. Training takes about a second, so no
model file and no pickle of a model exists. Start them as new processes: the forked child of a
process that has run OpenMP code (the teacher does) hangs in its first prediction. Set `ONE_THREAD`
in the environment before scikit-learn is first imported, so that a worker uses one core and the
latencies are those of one core.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Features = NDArray[np.float32]
    Labels = NDArray[np.int8]

FEATURES: Final = (
    "AGEP",
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
"""The columns of a row, in the order that every model expects."""

ENCODED: Final = ("MAR", "ESP", "CIT", "MIG", "MIL", "ANC")
"""What the green build one-hot encodes: columns of three or more codes without an order. RELP and
RAC1P stay numbers, as in the other models: some of their codes are too rare to be learned."""

TRAIN_YEAR: Final = 2015
HELD_OUT_ROWS: Final = 4_000
ADULT_AGE: Final = 18
TREE_DEPTH: Final = 10
SAMPLE_FILE: Final = "census_ma.parquet"

ONE_THREAD: Final[Mapping[str, str]] = MappingProxyType(
    {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
)
"""Environment of a serving process: set it before scikit-learn is first imported."""


class Estimator(Protocol):
    """What a fitted scikit-learn classifier offers."""

    def predict(self, X: Features, /) -> NDArray[Any]:  # noqa: N803 - scikit-learn's name
        """Return one label per row."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Feature rows with their labels.

    Attributes:
        features: Shape (n, 16), float32, columns as in `FEATURES`.
        labels: Shape (n,), 1 for employed, else 0.
    """

    features: Features
    labels: Labels

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> Rows:
        """Return the chosen rows, given as positions or as a mask."""
        return Rows(self.features[chosen], self.labels[chosen])

    def adults(self) -> Rows:
        """Return the rows of persons aged 18 or more."""
        return self.take(self.features[:, FEATURES.index("AGEP")] >= ADULT_AGE)


@dataclass(frozen=True, slots=True, eq=False)
class CensusSample:
    """The documented sample of `sample_data/`, split by time.

    Attributes:
        train: The rows of 2015.
        serve: The rows of 2016 to 2018, in the order of `serve_ids`: shuffle before serving.
        serve_ids: The id of each serving row, unique and rising.
    """

    train: Rows
    serve: Rows
    serve_ids: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One fitted model.

    Attributes:
        name: Short name, fit for a variant's key.
        description: What it is, in words.
        estimator: The fitted scikit-learn estimator that answers.
        train_seconds: Wall time of its fit, in seconds.
        held_out_rows: Rows of its own check, kept out of training.
        held_out_accuracy: Share of those rows that it got right.
    """

    name: str
    description: str
    estimator: Estimator
    train_seconds: float
    held_out_rows: int
    held_out_accuracy: float

    def predict(self, row: Features) -> int:
        """Answer one request.

        Args:
            row: The 16 features, shape (16,).

        Returns:
            1 for employed, else 0.

        Raises:
            ValueError: The estimator refused the row; green does, at a code that it never met.
        """
        return int(self.estimator.predict(row.reshape(1, -1))[0])

    def predict_many(self, features: Features) -> Labels:
        """Answer many rows in one call; one row that the estimator refuses fails all."""
        return self.estimator.predict(features).astype(np.int8)

    def accuracy(self, rows: Rows) -> float:
        """Return the share of rows that the model gets right."""
        return float(np.mean(self.predict_many(rows.features) == rows.labels))


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The models of the demo.

    Attributes:
        teacher: Gradient boosting: what serves when the demo begins.
        logistic: Logistic regression on the numeric codes: the canary of act 1.
        student: A tree of depth 10 that learned the teacher's answers: the candidate of act 2.
        green: The next build of the student, trained on adults only: the green side of act 3.
        adult_check: The held-out adults on which green was checked before the switch.
        fingerprint: SHA-256 of the models' answers to the held-out rows: equal for equal models.
    """

    teacher: Model
    logistic: Model
    student: Model
    green: Model
    adult_check: Rows
    fingerprint: str

    def all(self) -> tuple[Model, Model, Model, Model]:
        """Return the models in the order of the acts."""
        return (self.teacher, self.logistic, self.student, self.green)


def load_sample(path: Path | None = None) -> CensusSample:
    """Read the Census sample.

    Args:
        path: The Parquet file; by default this checkout's, else the installed package's.

    Raises:
        FileNotFoundError: No sample where it was looked for.
    """
    with duckdb.connect() as connection:
        columns = connection.read_parquet(str(_located(path))).fetchnumpy()
    order = np.argsort(columns["id"], kind="stable")
    year = columns["year"][order]
    rows = Rows(
        features=np.column_stack([columns[name][order] for name in FEATURES]).astype(np.float32),
        labels=columns["employed"][order].astype(np.int8),
    )
    serving = year > TRAIN_YEAR
    return CensusSample(
        train=rows.take(year == TRAIN_YEAR),
        serve=rows.take(serving),
        serve_ids=columns["id"][order][serving].astype(np.int32),
    )


def train(
    sample: CensusSample, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> Models:
    """Fit the four models on the rows of 2015; about a second on one core.

    Args:
        sample: The rows to learn from.
        seed: Chooses the held-out rows and the ties of the trees; the same seed, the same models.
        progress: Told of each step in words.

    Returns:
        The models. Each was checked on 4,000 rows of 2015 that no model learned from; green, whose
        training job kept adults only, on the adults among them.
    """
    tell = progress or _silent
    shuffled = np.random.default_rng(seed).permutation(len(sample.train))
    check = sample.train.take(shuffled[:HELD_OUT_ROWS])
    fit = sample.train.take(shuffled[HELD_OUT_ROWS:])

    tell(f"training the teacher on {len(fit):,} rows of {TRAIN_YEAR}")
    teacher = _fitted(
        "gradient-boosting",
        "gradient boosting, 150 trees",
        HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.05, early_stopping=False, random_state=seed
        ),
        fit,
        check,
    )
    tell("training logistic regression")
    logistic = _fitted(
        "logistic-regression",
        "logistic regression on the standardised numeric codes",
        make_pipeline(StandardScaler(), LogisticRegression()),
        fit,
        check,
    )
    tell("distilling the student from the teacher's answers")
    lesson = Rows(fit.features, teacher.predict_many(fit.features))
    student = _fitted(
        "distilled-tree",
        "one tree of depth 10 distilled from the teacher",
        _tree(seed),
        lesson,
        check,
    )
    tell("training the green build")
    encoded = [FEATURES.index(name) for name in ENCODED]
    encoder = OneHotEncoder(handle_unknown="error", sparse_output=False, dtype=np.float32)
    green = _fitted(
        "one-hot-tree",
        "the student's next build, one-hot encoded; its training job kept adults only",
        make_pipeline(
            make_column_transformer((encoder, encoded), remainder="passthrough"), _tree(seed)
        ),
        lesson.adults(),
        check.adults(),
    )
    return Models(
        teacher=teacher,
        logistic=logistic,
        student=student,
        green=green,
        adult_check=check.adults(),
        fingerprint=_fingerprint((teacher, logistic, student), check, green),
    )


def _fitted(name: str, description: str, estimator: Any, fit: Rows, check: Rows) -> Model:
    start = time.perf_counter()
    estimator.fit(fit.features, fit.labels)
    seconds = time.perf_counter() - start
    right = estimator.predict(check.features) == check.labels
    return Model(name, description, estimator, seconds, len(check), float(np.mean(right)))


def _tree(seed: int) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(max_depth=TREE_DEPTH, min_samples_leaf=15, random_state=seed)


def _fingerprint(models: tuple[Model, ...], check: Rows, green: Model) -> str:
    digest = hashlib.sha256()
    for model in models:
        digest.update(model.predict_many(check.features).tobytes())
    digest.update(green.predict_many(check.adults().features).tobytes())
    return digest.hexdigest()


def _located(path: Path | None) -> Path:
    package = Path(__file__).resolve().parents[1]
    places = [package.parent / "sample_data" / SAMPLE_FILE, package / "_sample_data" / SAMPLE_FILE]
    if path is not None:
        places = [path]
    for place in places:
        if place.is_file():
            return place
    tried = " or ".join(map(str, places))
    raise FileNotFoundError(
        f"no Census sample at {tried}: run sample_data/make_census_ma.py or pass its path"
    )


def _silent(_: str) -> None:
    pass
