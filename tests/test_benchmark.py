"""What is measured agrees with the reference, and is shown as it was measured; never on time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import small_checkpoint
from click.testing import CliRunner, Result

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.machine import describe
from lucid.benchmark.measure import Comparison, Measurement, compare, workload
from lucid.benchmark.peers import ISAS, PEERS, PRECISIONS, Candidate, Task, Workload
from lucid.benchmark.samples import photo_like, settled_network
from lucid.benchmark.worker import Worker, WorkerError
from lucid.checkpoint import write_checkpoint
from lucid.cli import main
from lucid.images import Pixels

SIDE = 48


@pytest.fixture(scope="module")
def work() -> Workload:
    """Images of an odd shape; padding that some runtimes do only by an operator of its own."""
    network = settled_network(MobileNetArguments(0.25, 10), SIDE)
    return workload(network, photo_like(8, SIDE + 16, SIDE, seed=1))


@pytest.fixture(scope="module")
def photos() -> Pixels:
    return photo_like(4, SIDE + 16, SIDE, seed=2)


# Compiling takes a minute; the module that is compiled is that of "torch".
RUNNABLE = [
    pytest.param(name, precision, batch, id=f"{name}-{precision}-{batch}")
    for name, peer in PEERS.items()
    for precision in peer.precisions
    for batch in (1, 2)
    if name not in ("lucid", "torch-compile") and (batch == 1 or precision == "float32")
]

# Of the root of the mean squared error, as a share of the logits' standard deviation; wrong
# answers have 1.4.
LIMITS = {"float32": 1e-4, "bfloat16": 0.15, "int8": 0.6}


@pytest.mark.parametrize(("name", "precision", "batch"), RUNNABLE)
@pytest.mark.filterwarnings("ignore")  # the runtimes' own
def test_peers_agree_with_the_reference(
    name: str, precision: str, batch: int, work: Workload, photos: Pixels
) -> None:
    if missing := PEERS[name].missing():
        pytest.skip(f"{', '.join(missing)} not installed")
    candidate = Candidate(name, precision)  # type: ignore[arg-type]
    inputs = photos.reshape(-1, batch, *photos.shape[1:])
    worker = Worker.start(Task(replace(work, batch=batch), candidate), inputs)
    try:
        logits = worker.logits(photos)
        times = worker.turn(0.01)
    finally:
        worker.close()
    expected = reference.run(work.network, photos)
    spread = float(expected.std(axis=0).mean())
    assert spread > 0.5, "else any answer would pass"
    error = float(np.sqrt(np.mean((logits - expected) ** 2)))
    assert error < LIMITS[precision] * spread
    assert len(times) >= 3
    assert (times > 0).all()


def test_int8_that_can_be_taken_is_lucids_own(work: Workload, photos: Pixels) -> None:
    """LiteRT's answers are those of lucid's int8 network, but for its rounding of logits."""
    if missing := PEERS["litert"].missing():
        pytest.skip(f"{', '.join(missing)} not installed")
    worker = Worker.start(Task(work, Candidate("litert", "int8")), photos[:, np.newaxis])
    try:
        logits = worker.logits(photos)
    finally:
        worker.close()
    expected = reference.run(work.int8, photos)
    step = work.largest_logit / 127
    limit = np.clip(expected, -128 * step, 127 * step)
    assert np.abs(logits - limit).mean() < 2 * step


def test_a_comparison_has_all_rounds(work: Workload, photos: Pixels) -> None:
    available = [name for name in ("ncnn", "litert") if not PEERS[name].missing()]
    if not available:
        pytest.skip("neither ncnn nor ai-edge-litert is installed")
    candidates = [Candidate(name, "float32") for name in available]
    found = compare(work, candidates, photos, rounds=2, seconds=0.01)
    assert [one.candidate for one in found.measurements] == candidates
    assert not found.failures
    for one in found.measurements:
        assert len(one.turns) == 2
        assert one.agreement == 1
        assert one.difference < 1e-3
        assert one.times_as_fast_as(one) == 1
    assert json.loads(json.dumps(found.to_json()))["measurements"][0]["peer"] == available[0]


def test_what_fails_is_said_and_the_rest_measured(
    work: Workload, photos: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "start", _refuse)
    found = compare(work, [Candidate("ncnn", "float32")], photos, rounds=1)
    assert found.measurements == ()
    assert found.failures == {"ncnn float32": "ncnn float32: no"}


def _refuse(task: Task, images: Pixels) -> Worker:
    assert images.shape[1] == task.workload.batch
    raise WorkerError(f"{task.candidate}: no")


def test_the_error_of_a_process_names_the_candidate(work: Workload, photos: Pixels) -> None:
    if missing := PEERS["ncnn"].missing():
        pytest.skip(f"{', '.join(missing)} not installed")
    with pytest.raises(WorkerError, match=r"ncnn float32: \w+Error: .*expects uint8"):
        Worker.start(Task(work, Candidate("ncnn", "float32")), photos[:, np.newaxis, ..., :1])


def test_limits_and_threads_are_variables_of_the_process() -> None:
    variables = Candidate("openvino", "int8", threads=2, isa="avx2").environment()
    assert variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert "ONEDNN_MAX_CPU_ISA" not in Candidate("openvino", "int8").environment()


def test_every_peer_is_sound() -> None:
    for peer in PEERS.values():
        assert set(peer.precisions) <= set(PRECISIONS)
        assert set(peer.isas) <= set(ISAS)


def test_pictures_are_like_photos_and_always_the_same() -> None:
    pictures = photo_like(3, 40, 56)
    assert (pictures.shape, pictures.dtype) == ((3, 40, 56, 3), np.uint8)
    assert (pictures == photo_like(3, 40, 56)).all()
    assert pictures.std() > 20
    steps = np.abs(np.diff(pictures.astype(int), axis=2)).mean()
    assert steps < 0.5 * pictures.std(), "neighbours are alike"


def test_machine_is_described() -> None:
    found = describe(("numpy", "no-such-package"))
    assert found["versions"].startswith("numpy ")
    assert "no-such-package" not in found["versions"]
    assert int(found["cores"]) >= 1


def measurement(peer: str, precision: str, *turns: float) -> Measurement:
    candidate = Candidate(peer, precision)  # type: ignore[arg-type]
    peak = 1e9 if precision == "int8" else None
    return Measurement(candidate, {}, 1.0, turns, 0.99, 0.5, 250_000, peak)


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        (
            measurement("lucid", "float32", 0.004, 0.004, 0.005),
            measurement("lucid", "int8", 0.001, 0.001, 0.002),
            measurement("torch", "float32", 0.008, 0.008, 0.008),
            measurement("openvino", "int8", 0.002, 0.004, 0.002),
        ),
        {"ncnn int8": "ncnn int8: RuntimeError: no"},
    )


def test_ratios_compare_round_with_round(comparison: Comparison) -> None:
    _, int8, torch, openvino = comparison.measurements
    assert int8.times_as_fast_as(openvino) == 2
    assert int8.times_as_fast_as(torch) == 8
    fastest = comparison.fastest(lambda one: one.peer != "lucid")
    assert fastest is openvino


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, small_checkpoint())
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, comparison: Comparison) -> list[Candidate]:
    """The candidates that a command wants measured; instead of measuring, it gets figures."""
    found: list[Candidate] = []

    def instead(_work: Workload, candidates: list[Candidate], *_: object, **__: object) -> object:
        found.extend(candidates)
        return comparison

    monkeypatch.setattr("lucid.benchmark.measure.compare", instead)
    return found


def lucid(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["benchmark", *map(str, arguments)])


def test_the_command_shows_a_table(saved: Path, asked: list[Candidate]) -> None:
    result = lucid(saved, "--against", "none", "--precision", "float32,int8", "--threads", 2)
    assert result.exit_code == 0, result.output
    assert asked == [Candidate("lucid", "float32", 2), Candidate("lucid", "int8", 2)]
    header, *rows = result.stdout.splitlines()
    assert " ".join(header.split()) == (
        "runtime precision ms spread images/s of peak agreement largest difference "
        "lucid float32 is lucid int8 is"
    )
    assert " ".join(rows[1].split()) == (
        "lucid int8 1.000 1.000 to 2.000 1,000 25% 99.0% 0.5 0.25x"
    )
    assert " ".join(rows[2].split()) == (
        "torch float32 8.000 8.000 to 8.000 125 99.0% 0.5 2.00x 8.00x"
    )
    assert rows[4:] == [
        "lucid float32: 2.00 times as fast as torch float32, the fastest other in float32; "
        "0.50 times as fast as openvino int8, the fastest other of all",
        "lucid int8: 2.00 times as fast as openvino int8, the fastest other in int8; "
        "2.00 times as fast as openvino int8, the fastest other of all",
    ]
    assert "ncnn int8 is left out: RuntimeError: no" in result.stderr
    assert "cores: " in result.stderr


def test_the_command_prints_json(saved: Path, asked: list[Candidate]) -> None:
    result = lucid(saved, "--against", "none", "--json")
    found = json.loads(result.stdout)
    assert len(asked) == 3
    assert [one["peer"] for one in found["measurements"]] == ["lucid", "lucid", "torch", "openvino"]
    assert found["measurements"][3]["turns"] == [0.002, 0.004, 0.002]
    assert found["machine"]["cpu"]


def test_what_is_not_installed_is_said(
    saved: Path, asked: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(PEERS["ncnn"], packages=("no_such_package",))
    monkeypatch.setattr("lucid.benchmark.peers.PEERS", {"lucid": PEERS["lucid"], "ncnn": absent})
    hint = "it needs no_such_package; run: pip install 'lucid-mobilenet[benchmark]'"
    assert f"ncnn is not measured: {hint}" in lucid(saved).stderr
    assert {one.peer for one in asked} == {"lucid"}
    named = lucid(saved, "--against", "ncnn")
    assert (named.exit_code, named.stdout) == (2, "")
    assert hint in named.stderr


def test_a_limit_leaves_out_who_does_not_know_it(saved: Path, asked: list[Candidate]) -> None:
    if PEERS["ncnn"].missing():
        pytest.skip("ncnn is not installed")
    result = lucid(saved, "--against", "ncnn", "--isa", "avx2")
    assert "ncnn is left out: it can't be limited to avx2" in result.stderr
    assert {(one.peer, one.isa) for one in asked} == {("lucid", "avx2")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "onnxruntme"], "--against: there is no 'onnxruntme'; did you mean"),
        (["--against", "lucid"], "--against: there is no 'lucid'"),
        (["--precision", "int9"], "--precision: there is no 'int9'; did you mean 'int8'?"),
        (["--isa", "mmx"], "--isa: there is no 'mmx'; one of avx2"),
    ],
    ids=str,
)
def test_wrong_names(saved: Path, arguments: list[str], message: str) -> None:
    result = lucid(saved, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_too_few_photos(saved: Path, tiny_photos: Path) -> None:
    result = lucid(saved, "--against", "none", "--data", tiny_photos)
    assert result.exit_code == 2
    assert "30 photos are too few" in result.stderr
