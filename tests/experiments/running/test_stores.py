"""Commands on object stores: a run that begins, resumes, ends and is used there."""

import json

import pytest

import jaxcon
from experiments import simclr
from experiments.images import two_views
from experiments.running import runner
from experiments.running.options import Machine, flat, parse
from jaxcon.stores import StoreError
from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_hash
from tests.experiments.commands import HERE, SHORT, ended, refused
from tests.experiments.folders import begin, pictures, train

RUN = "gs://bucket/runs/pets"


@pytest.fixture
def flags(tmp_path, objects):
    return [f"--dataset=folder:{pictures(tmp_path / 'pets')}", "--encoder=mlp"]


def test_an_address_is_an_option():
    config = parse(simclr.SimCLR, program="simclr", arguments=["--workdir=s3://bucket/run"])
    assert flat(config.machine)["workdir"] == "s3://bucket/run"
    assert flat(Machine())["workdir"] is None


def test_an_address_of_another_kind_is_one_line(capsys):
    with pytest.raises(SystemExit):
        simclr.main(["--workdir=az://bucket/run"])
    said = capsys.readouterr().err
    assert "gs://BUCKET/FOLDER or s3://BUCKET/FOLDER" in said
    assert said.count("\n") == 1


def test_a_run_begins_resumes_and_is_used_there(flags, objects, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    variables = train(begin(simclr.main, [*flags, f"--workdir={RUN}"]))
    again = begin(simclr.main, [*flags, f"--workdir={RUN}"])
    assert again["workdir"].resumed
    run = jaxcon.load_run(RUN)
    assert repr(run).startswith(f"TrainedRun('{RUN}': simclr on ")
    assert run.step == 7
    more = begin(simclr.main, [*flags, "--epochs=90", f"--start-from={RUN}"])
    assert state_hash(more["start"]) == state_hash(variables)
    assert more["workdir"].path.name.endswith("-from-pets")
    config = json.loads((more["workdir"].path / "config.json").read_text())
    assert config["start_from"]["run"] == RUN
    said = refused(simclr.main, [*flags, "--epochs=90", f"--workdir={RUN}"], capsys)
    assert f"add --start-from={RUN}: a new run" in said
    assert "jaxcon-store" not in said
    said = refused(simclr.main, [*flags, f"--workdir={RUN}", f"--start-from={RUN}"], capsys)
    assert "that is also the --workdir" in said
    assert {p.name for p in tmp_path.iterdir()} == {"pets", "runs"}  # none is called gs:


def test_a_run_that_has_begun_needs_the_other_no_more(flags, objects):
    train(begin(simclr.main, [*flags, f"--workdir={RUN}"]))
    new = [*flags, "--workdir=gs://bucket/runs/new", f"--start-from={RUN}"]
    train(begin(simclr.main, new), step=0)
    objects.held = {n: c for n, c in objects.held.items() if "/pets/" not in n}
    given = begin(simclr.main, new)
    assert given["workdir"].resumed
    assert given["start"] is None


@pytest.mark.parametrize(
    ("workdir", "error", "said"),
    [
        (
            "s3://wrong/run",
            None,
            "--workdir=s3://wrong/run: there is no bucket wrong",
        ),
        (
            RUN,
            PermissionError("Access Denied"),
            "cannot be written to (Access Denied); the account needs",
        ),
    ],
)
def test_what_refuses_is_told_before_anything_is_loaded(
    objects, monkeypatch, capsys, workdir, error, said
):
    monkeypatch.setattr(runner, "select_devices", pytest.fail)
    objects.refused = error
    assert said in refused(simclr.main, [f"--workdir={workdir}"], capsys)


@pytest.mark.slow
def test_a_store_that_refuses_later_ends_the_run_with_what_is_saved(
    flags, objects, monkeypatch, capsys
):
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: None)
    write = objects.pipe_file

    def expire(path, *rest, **more):
        if "/checkpoints/10/" in path:
            objects.refused = PermissionError("token expired")
        write(path, *rest, **more)

    monkeypatch.setattr(objects, "pipe_file", expire)
    said = ended(simclr.main, [*flags, *SHORT, *HERE, f"--workdir={RUN}"], capsys)
    assert f"{RUN}: cannot be written to (token expired)" in said
    assert (
        "the state after step 5 is saved, and the same command resumes once that is fixed" in said
    )
    monkeypatch.undo()


@pytest.mark.slow
def test_a_whole_run_ends_there_with_its_page(flags, objects, capsys):
    command = [*flags, *SHORT, *HERE, f"--workdir={RUN}"]
    simclr.main(command)
    assert f"report: {RUN}/report.html" in capsys.readouterr().out
    page = objects.held["bucket/runs/pets/report.html"].decode()
    assert f"<dd>{RUN}</dd>" in page
    assert "bucket/runs/pets/figures/loss.png" in objects.held
    assert load_newest(RUN)[0] == 12
    objects.refused = StoreError("read only")
    simclr.main(command)
    out = capsys.readouterr().out
    assert out.startswith(f"this run is finished: {RUN}\n")
    assert "trained encoder" in out
