"""What is restored is what was saved; anything else is named and refused."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.training import checkpoint as module
from jaxcon.training.checkpoint import Checkpoints, CorruptCheckpointError, load_variables
from jaxcon.training.devices import make_mesh, replicate
from jaxcon.training.digests import state_hash, state_leaves
from jaxcon.training.sharded import state_sharding
from tests.marks import exhaustive_unless
from tests.training.damage import damage
from tests.training.toy import make_state, save_toys


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints whose states differ, and what they hold."""
    states = {}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            state = make_state(average=True).replace(step=jnp.int32(step))
            state = state.replace(params=jax.tree.map(lambda x, s=step: x + s, state.params))
            checkpoints.save(step, state)
            states[step] = state
    return tmp_path / "checkpoints", states


def restore(folder, template=None):
    told = []
    template = make_state(average=True) if template is None else template
    with Checkpoints(folder, say=told.append) as checkpoints:
        return checkpoints.restore(template), told


def flip(path, *, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_the_newest_state_comes_back_whole(saved):
    folder, states = saved
    (step, state), told = restore(folder)
    assert (step, told) == (2, [])
    assert state_hash(state) == state_hash(states[2]) != state_hash(states[1])
    assert type(state) is type(states[2])
    assert [type(s) for s in state.opt_state] == [type(s) for s in states[2].opt_state]


# Each has characters that shells, formats of texts or addresses of the web give a meaning to.
@pytest.mark.parametrize("name", [" %20#:&=+@!~'\";,|<>$^", "{x} ]猫\n\t"])
def test_what_is_written_in_a_folder_of_any_name_is_found_again(tmp_path, name):
    with Checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(1, {"w": np.ones(2)})
    assert restore(tmp_path / name, {"w": np.zeros(2)})[0][0] == 1


@pytest.mark.parametrize("name", ["[1]", "a*", "b?"])
def test_where_it_would_not_be_it_is_not_written_but_read(saved, tmp_path, name):
    with pytest.raises(ValueError, match="checkpoints cannot be kept where a path has "):
        Checkpoints(tmp_path / name)
    saved[0].rename(tmp_path / name)
    with Checkpoints(tmp_path / name, read_only=True) as checkpoints:
        assert checkpoints.load()[0] == 2


@pytest.mark.parametrize("name", ["a\\b", "caf\udce9"])
def test_where_nothing_can_be_read_it_is_said(tmp_path, name):
    with pytest.raises(ValueError, match="checkpoints cannot be kept where a path has "):
        Checkpoints(tmp_path / name, read_only=True)


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "checkpoints") == (None, [])


def test_arrays_get_the_shardings_of_the_template(saved):
    mesh = make_mesh(jax.devices()[:4])
    template = replicate(make_state(average=True), mesh)
    (_, state), _ = restore(saved[0], template)
    assert all(leaf.sharding == template.step.sharding for leaf in jax.tree.leaves(state))


def placed(state, devices, *, shards):
    mesh = make_mesh(jax.devices()[:devices])
    if not shards:
        return replicate(state, mesh)
    return jax.device_put(jax.device_get(state), state_sharding(state, mesh, at_least=1))


@pytest.mark.parametrize(
    ("before", "after"),
    [((4, True), (1, False)), ((2, False), (4, True)), ((4, True), (2, True))],
    ids=str,
)
def test_shards_and_whole_states_restore_as_each_other(tmp_path, before, after):
    trained = make_state(average=True)
    trained = trained.replace(params=jax.tree.map(lambda x: 3 * x + 1, trained.params))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, placed(trained, before[0], shards=before[1]))
    template = placed(make_state(average=True), after[0], shards=after[1])
    (_, state), told = restore(tmp_path, template)
    assert told == []
    assert state_hash(state) == state_hash(trained)
    for leaf, wanted in zip(*map(jax.tree.leaves, (state, template)), strict=True):
        assert leaf.sharding == wanted.sharding


def test_a_buffer_reused_after_save_does_not_reach_the_disk(tmp_path):
    values = np.ones(1000, np.float32)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(0, {"w": values})
        values[:] = 7.0
    (_, state), _ = restore(tmp_path / "c", {"w": np.zeros(1000, np.float32)})
    assert set(state["w"]) == {1.0}


def test_a_damaged_checkpoint_falls_back_to_the_one_before(saved):
    folder, states = saved
    shutil.rmtree(folder / "2" / "state")
    (step, state), told = restore(folder)
    assert step == 1
    assert state_hash(state) == state_hash(states[1])
    assert told[0].startswith("checkpoint 2 is not used")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, states[2])
    assert restore(folder)[0][0] == 2


def test_an_empty_folder_with_a_number_never_wins(saved):
    folder, _ = saved
    (folder / "9").mkdir()
    (step, _), told = restore(folder)
    assert step == 2
    assert "9" in told[0]
    assert "incomplete" in told[0]


def test_all_damaged_is_a_refusal(saved):
    folder, _ = saved
    for step in (1, 2):
        shutil.rmtree(folder / str(step) / "digests")
    with pytest.raises(CorruptCheckpointError, match="none of 2 checkpoints is intact"):
        restore(folder)
    assert (folder / "1").is_dir()  # refused, not cleared away


def test_a_changed_array_is_named(saved, monkeypatch):
    """A flipped byte that Orbax reads without complaint: simulated where the digest is taken."""
    folder, _ = saved
    whole = module.digest

    def altered(leaf):
        leaf = np.array(leaf)
        if leaf.shape == (6, 8):
            leaf.view(np.uint32)[2, 3] ^= 1
        return whole(leaf)

    monkeypatch.setattr(module, "digest", altered)
    with pytest.raises(CorruptCheckpointError, match=r"params\.Dense_0\.kernel is damaged"):
        restore(folder)


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_is_never_silent(saved, seed):
    folder, states = saved
    path = largest_file(folder / "2")
    flip(path, bit=random.Random(seed).randrange(8 * path.stat().st_size))
    (step, state), told = restore(folder)
    assert state_hash(state) == state_hash(states[step])
    assert step == 2 or told


@pytest.mark.parametrize("number", exhaustive_unless(lambda number: number < 200, [16, 200]))
def test_damage_is_never_silent(tmp_path, capfd, number):
    """Bits flipped, files cut short, files and folders deleted."""
    template, hashes = save_toys(tmp_path / "checkpoints")
    damage(tmp_path / "checkpoints", template, hashes, number=number)
    assert "Traceback" not in capfd.readouterr().err


def test_another_model_is_refused(saved):
    other = make_state(average=False)
    with pytest.raises(CorruptCheckpointError, match="another set of arrays, beginning at ema"):
        restore(saved[0], other)


def test_another_dtype_is_not_cast_in_silence(saved):
    template = make_state(average=True)
    template = template.replace(
        params=jax.tree.map(lambda x: x.astype("bfloat16"), template.params)
    )
    with pytest.raises(CorruptCheckpointError, match="is float32 there, expected bfloat16"):
        restore(saved[0], template)


def test_leaves_have_readable_names():
    names = state_leaves(make_state())
    assert {"step", "skipped", "params.Dense_0.kernel", "batch_stats.BatchNorm_0.mean"} <= set(
        names
    )


@pytest.mark.parametrize("average", [True, False])
def test_the_variables_of_a_run_are_loaded_without_a_template(tmp_path, average):
    state = make_state(average=average)
    state = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(0, state)
    variables = load_variables(tmp_path)
    assert set(variables) == {"params", "batch_stats"}
    wanted = state_leaves({"batch_stats": {}} | dict(state.variables(average=True)))
    assert state_leaves(variables).keys() == wanted.keys()
    for name, leaf in state_leaves(variables).items():
        assert isinstance(leaf, np.ndarray)
        np.testing.assert_array_equal(leaf, wanted[name])


def test_damage_is_passed_over_and_left_where_it_is(saved, capsys):
    folder, states = saved
    flip(largest_file(folder / "2"), bit=4000)
    before = sorted(path.name for path in folder.iterdir())
    variables = load_variables(folder.parent)
    assert "checkpoint 2 is not used" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == before
    assert state_hash(variables) == state_hash(dict(states[1].variables(average=True)))


def test_a_run_that_goes_on_may_sweep_away_what_is_being_read(saved, monkeypatch):
    folder, states = saved
    load, calls = Checkpoints.load, []

    def swept(checkpoints):
        calls.append(1)
        if len(calls) == 1:
            shutil.rmtree(folder / "1")
            shutil.copytree(folder / "2", folder / "3")
            raise CorruptCheckpointError("all of them vanished")
        return load(checkpoints)

    monkeypatch.setattr(Checkpoints, "load", swept)
    variables = load_variables(folder.parent)
    assert state_hash(variables) == state_hash(dict(states[2].variables(average=True)))


def test_a_folder_without_a_run_has_no_variables(tmp_path):
    with pytest.raises(ValueError, match="found no checkpoint there"):
        load_variables(tmp_path / "none")
    assert not (tmp_path / "none").exists()
