"""The demo's models tell the story that the demo relies on, on the sample that ships."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from abkit.demo.models import CensusSample, Models, load_sample, train

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def sample() -> CensusSample:
    return load_sample()


@pytest.fixture(scope="module")
def models(sample: CensusSample) -> Models:
    return train(sample)


def fingerprint_in_new_process() -> str:
    """What a worker does before it serves."""
    return train(load_sample()).fingerprint


def test_sample_has_the_documented_rows(sample: CensusSample) -> None:
    assert len(sample.train) == 24_000
    assert len(sample.serve) == len(sample.serve_ids) == 60_000
    assert len(np.unique(sample.serve_ids)) == 60_000
    assert sample.serve.features.shape == (60_000, 16)
    assert sample.serve.features.dtype == np.float32
    assert set(np.unique(sample.serve.labels)) == {0, 1}
    assert 0.49 < sample.serve.labels.mean() < 0.51


def test_missing_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Census sample at .*absent\.parquet"):
        load_sample(tmp_path / "absent.parquet")


def test_accuracy_falls_from_teacher_to_student_to_logistic(
    sample: CensusSample, models: Models
) -> None:
    teacher = models.teacher.accuracy(sample.serve)
    assert teacher == pytest.approx(0.827, abs=0.006)
    assert 0.0 < teacher - models.student.accuracy(sample.serve) < 0.006
    assert 0.03 < teacher - models.logistic.accuracy(sample.serve) < 0.06


def test_student_and_teacher_seldom_disagree(sample: CensusSample, models: Models) -> None:
    features = sample.serve.features
    disagree = np.mean(
        models.teacher.predict_many(features) != models.student.predict_many(features)
    )
    assert 0.01 < disagree < 0.05


def test_one_row_gets_the_answer_of_the_batch(sample: CensusSample, models: Models) -> None:
    rows = sample.serve.features[:100]
    for model in (models.teacher, models.logistic, models.student):
        assert [model.predict(row) for row in rows] == model.predict_many(rows).tolist()


def test_green_passes_its_own_check(models: Models) -> None:
    green = models.green.accuracy(models.adult_check)
    assert green == models.green.held_out_accuracy
    assert green > models.student.accuracy(models.adult_check) - 0.01
    assert models.green.predict(models.adult_check.features[0]) in {0, 1}


def test_green_fails_on_live_children(sample: CensusSample, models: Models) -> None:
    rows = sample.serve.features[::60]
    failed = []
    for row in rows:
        try:
            models.green.predict(row)
        except ValueError as error:
            assert "unknown categories" in str(error)  # noqa: PT017 - the rate is the point, not one failure
            failed.append(row[0])
    assert 0.13 < len(failed) / len(rows) < 0.24
    assert max(failed) < 18


def test_another_process_trains_the_same_models(models: Models) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(fingerprint_in_new_process) == models.fingerprint


def test_another_seed_trains_other_models(sample: CensusSample, models: Models) -> None:
    assert train(sample, seed=1).fingerprint != models.fingerprint
