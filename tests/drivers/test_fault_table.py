"""docs/faults.md says what the fault tests say, and every anomaly has a fault that counts it."""

from __future__ import annotations

from sim.drivers.live_receiver import RECEIVER_ANOMALIES
from sim.drivers.live_sender import SENDER_ANOMALIES
from tests.drivers import (
    fault_table,
    test_faults_bytes,  # noqa: F401  (fills the table)
    test_faults_commands,  # noqa: F401
    test_faults_peers,  # noqa: F401
)


def test_every_anomaly_has_a_fault_that_makes_it_count() -> None:
    named = {name for row in fault_table.ROWS.values() for name in row.counters}
    unheard = {"unacknowledged_batches"}  # 0 when the receiver is killed between two batches
    assert {*SENDER_ANOMALIES, *RECEIVER_ANOMALIES} <= named | unheard


def test_the_document_has_the_rows_of_these_tests() -> None:
    text = fault_table.DOCUMENT.read_text()
    assert fault_table.with_table(text) == text, "run python -m tests.drivers.fault_table"
