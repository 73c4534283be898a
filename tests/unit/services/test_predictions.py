"""Rankings and cells from a table of predictions, as scikit-learn and counting give them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from services import views
from services.predictions import MOST_POINTS, cell, rankings
from services.tables import Artifact
from services.tokens import Principal
from tests.unit.services.dashboard.full_service import (
    CLASSES,
    Service,
    add_datasets,
    answers,
    predictions,
    service,
    training_summary,
)

ADMIN = Principal("root", "admin")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        add_datasets(found)
        yield found


@pytest.fixture
def table(made: Service) -> Artifact:
    job_id = made.submit()
    made.finish(made.claim(), {}, {"predictions.csv": predictions(made)})
    return views.get_artifact(made.context.database, ADMIN, job_id, "predictions.csv")


def test_areas_under_the_curves_are_those_of_scikit_learn(made: Service, table: Artifact) -> None:
    truth, probabilities, _ = answers()
    found = rankings(made.context.store, table)
    assert [one.name for one in found] == CLASSES
    for k, one in enumerate(found):
        x, y = np.array(one.roc).T
        assert len(x) <= MOST_POINTS
        assert one.images == (truth == k).sum()
        assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(truth == k, probabilities[:, k]), abs=5e-3)
        recall, precision = np.array(one.precision).T
        area = (np.diff(recall) * precision[1:]).sum()
        assert area == pytest.approx(average_precision_score(truth == k, probabilities[:, k]), abs=5e-3)


def test_cells_hold_the_images_of_the_confusion_matrix(made: Service, table: Artifact) -> None:
    matrix = training_summary()["figures"]["confusion_matrix"]
    for i, truth in enumerate(CLASSES):
        for k, predicted in enumerate(CLASSES):
            found = cell(made.context.store, table, truth, predicted, 1000)
            assert len(found) == matrix[i][k]
            assert all(one.probability is not None and one.probability > 1 / len(CLASSES) for one in found)
    assert len(cell(made.context.store, table, "nv", "nv", 5)) == 5


def test_a_table_without_truths_ranks_nothing(made: Service) -> None:
    job_id = made.submit()
    made.finish(made.claim(), {}, {"predictions.csv": b"image_id,truth,predicted,p_a,p_b\nx,,a,0.7,0.3\ny,,,,\n"})
    row = views.get_artifact(made.context.database, ADMIN, job_id, "predictions.csv")
    assert rankings(made.context.store, row) == []
