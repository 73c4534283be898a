"""The model of docs/scaling.md: its arithmetic against hand-worked figures, and the document against the model."""

from dataclasses import replace

import pytest

from benchmarks.rates import RESULTS, Rates
from benchmarks.scaling_model import GPUS, Assumed, carries, connections, load, newest_rates, table
from bgpanet.catalogue import MODELS
from tests.support.deployment import ROOT

RATES = Rates(
    redis_per_job=10.0,
    redis_per_slot_second=2.0,
    connections={1: 4, 4: 8, 16: 20},
    rows_per_said_step=3,
    rows_per_epoch=5,
    renewals=500.0,
    claims=100.0,
    redis_pairs=10_000.0,
)
# 640 images to learn from, 180 epochs, 100 images a second: 1,152 s; 20 batches of 32 an epoch: 3,600 steps.
ASSUMED = Assumed(images=1_000, images_a_second=100.0, checkpoint_seconds=60.0, store=1e9)


def test_one_gpu_asks_what_can_be_worked_out_by_hand() -> None:
    found = load(1, RATES, ASSUMED)
    assert found.job_seconds == pytest.approx(1152)
    assert found.sql == pytest.approx(1.2)  # a lease every second, a sign of life every five
    assert found.redis == pytest.approx(10 / 1152 + 2)
    # Every second step is told, since 3,600 are more than a curve has points.
    assert found.metric_rows == pytest.approx((1800 * 3 + 180 * 5) / 1152)
    assert found.store_bytes == pytest.approx(MODELS["bgpanet"].parameters * 1e6 * 12 / 60)
    assert found.connections == 4


def test_load_grows_with_gpus_and_connections_with_processes() -> None:
    one, many = load(1, RATES, ASSUMED), load(1000, RATES, ASSUMED)
    assert many.sql == pytest.approx(1000 * one.sql)
    assert many.connections == 4000
    assert load(1000, RATES, replace(ASSUMED, slots=16)).connections == 63 * 20
    assert connections(RATES.connections, 3) == 8


def test_a_service_carries_as_many_gpus_as_use_it_up() -> None:
    for service, gpus in carries(RATES, ASSUMED).items():
        share = load(1000, RATES, ASSUMED).shares(RATES, ASSUMED)[service]
        assert share * gpus / 1000 == pytest.approx(1)


def test_the_document_has_the_table_that_the_model_computes_from_what_was_measured() -> None:
    name, rates = newest_rates()
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert (RESULTS / name).is_file()
    assert name in text
    assert table(rates, Assumed()) in text
    assert [f"{gpus:,}" for gpus in GPUS] == ["10", "100", "1,000"]
