"""One golden file a message type: what old and new ends say to each other does not change unseen."""

import json
from pathlib import Path

import pytest

from node_link.codec import decode, encode, records
from node_link.messages import MESSAGES, JobsFinished, JobsOutput, JobsStarted, Message
from pure.link_samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"


def test_every_message_type_has_a_sample_and_a_file() -> None:
    types = [message.model_fields["type"].default for message in MESSAGES]
    assert [sample.type for sample in SAMPLES] == types
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(types)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.type)
def test_a_message_is_written_as_the_file_says_and_read_back(sample: Message) -> None:
    golden = (GOLDEN / f"{sample.type}.json").read_text()
    assert json.loads(encode(sample)) == json.loads(golden)
    assert decode(golden) == sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.type)
def test_fields_of_a_newer_protocol_are_ignored(sample: Message) -> None:
    newer = json.loads((GOLDEN / f"{sample.type}.json").read_text()) | {"from_the_future": {"a": [1]}}
    assert decode(json.dumps(newer)) == sample


@pytest.mark.parametrize("sample", [one for one in SAMPLES if isinstance(one, JobsStarted | JobsOutput | JobsFinished)])
def test_records_of_the_samples_are_valid(sample: JobsStarted | JobsOutput | JobsFinished) -> None:
    assert [type(record) for record in records(sample)] == [sample.record]
