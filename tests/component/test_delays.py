"""What is slow around it holds up no undo: the rows of `benchmarks.delays`, in virtual time."""

import pytest

from benchmarks.delays import MOST_S, SLOW, undo

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("slow", SLOW)
async def test_an_undo_is_written_within_a_step_and_a_second_of_its_evidence(slow: str) -> None:
    found = await undo(SLOW[slow])
    assert found.evidence_s is not None
    assert found.delay_s is not None
    assert found.delay_s <= MOST_S
