"""The log of metrics: lines that are damaged or cut off are passed over."""

import json
import math

from jaxcon.training.metrics import MetricsLog, read_metrics


def test_damage_in_the_log_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": None}]
    bad = [
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"step": "2", "loss": 1}',
        b'{"loss": 1}',
        b'{"step": 2}',
        b"{" * 9,
    ]
    path.write_bytes(b"\n".join([json.dumps(good[0]).encode(), *bad, json.dumps(good[1]).encode()]))
    assert read_metrics(path) == good


def test_a_line_cut_off_by_a_kill_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert read_metrics(path) == [{"step": 0, "loss": 1.0}]
    with MetricsLog(tmp_path, start=1) as log:
        log.write(1, {"loss": math.nan})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "loss": 1.0},
        {"step": 1, "loss": None},
    ]
