"""TensorBoard's events: what is written can be read, and a full disk is told to whoever writes."""

import struct

import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxcon.training.events import Events
from jaxcon.training.metrics import MetricsLog


def read(file):
    """The events of a file of TFRecords: a length, its checksum, the record and its checksum."""
    content, events = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return events


def test_values_by_step_after_what_begins_a_session(tmp_path):
    events = Events(tmp_path / "events", start=3)
    for step in (3, 4):
        events.write(step, {"loss": step / 2, "skipped": 0.0})
    events.close()
    (file,) = (tmp_path / "events").iterdir()
    found = read(file)
    assert [event.step for event in found if event.session_log.status == SessionLog.START] == [3]
    values = [(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value]
    assert values == [(s, n, x) for s in (3, 4) for n, x in (("loss", s / 2), ("skipped", 0))]


def test_a_full_disk_is_an_error_and_no_wait_without_end(tmp_path, monkeypatch):
    full = open("/dev/full", "wb")  # noqa: SIM115 - what it holds cannot be written
    monkeypatch.setattr(record_writer, "open_file", lambda _: full)
    log = MetricsLog(tmp_path, start=0)

    def write_much():
        for step in range(10_000):
            log.write(step, {"loss": 1.0})

    with pytest.raises(OSError, match="No space left on device"):
        write_much()
