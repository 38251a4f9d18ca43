"""The engine: what the reference computes, on every instruction set that runs here."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_helpers import small_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import network_of, random_pixels, steady_model
from network_helpers import described, generator, int8_networks
from numpy.typing import NDArray
from photo_helpers import photo

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.checkpoint import write_checkpoint
from lucid.engine import Engine, isas
from lucid.errors import CheckpointError, ConfigError, ShapeError
from lucid.images import Pixels, normalise, preprocess
from lucid.images import load as load_image
from lucid.lowering import lower
from lucid.network import (
    FloatNetwork,
    Int8Layer,
    Int8Network,
    Int8Pool,
    Layer,
    sized_layers,
    write_network,
)
from lucid.quantization import measure_ranges, quantise

INT8 = isas("int8")
# Relative to the range of the logits.
TOLERANCES = {"float32": 1e-5, "float32-split": 1e-4, "bfloat16": 0.05}
FLOAT_SETS = [(precision, isa) for precision in TOLERANCES for isa in isas(precision)]

# Bytes that kernels find where they compute: large as uint8, and not a number as float.
GARBAGE = 0xFF


def engine_with_garbage(*arguments: Any, **options: Any) -> Engine:
    """An engine that fills its memory before each run: kernels must not depend on what is there."""
    engine = Engine(*arguments, **options)
    engine._native.fill_workspaces(GARBAGE)
    return engine


def smallest_side(network: FloatNetwork | Int8Network) -> int:
    return math.prod(layer.stride for layer in network.layers)


@pytest.fixture(scope="module")
def float_network() -> FloatNetwork:
    """A network of width 0.25 whose logits depend on every layer."""
    return steady_network(MobileNetArguments(0.25, 10))


@pytest.fixture(scope="module")
def int8_network(float_network: FloatNetwork) -> Int8Network:
    return quantise(float_network, measure_ranges(float_network, [random_pixels((2, 64, 64, 3))]))


def steady_network(arguments: MobileNetArguments) -> FloatNetwork:
    return network_of(steady_model(arguments))


def test_every_precision_has_a_set_that_runs_anywhere() -> None:
    assert isas("int8")[-1] == isas("float32")[-1] == "scalar"
    assert set(isas("int8")) <= set(isas("int8", runnable=False))


# --- int8: the same bits ------------------------------------------------------------------------


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Int8Network, Pixels]:
    """A network of up to 70 channels and up to three images for it, of any size that it takes."""
    network = draw(int8_networks(draw(st.sampled_from([1, 4, 17, 40, 70]))))
    random = generator(draw)
    sides = st.integers(smallest_side(network), smallest_side(network) + draw(st.integers(0, 30)))
    shape = (draw(st.integers(1, 3)), draw(sides), draw(sides), network.layers[0].in_channels)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    pixels[random.random(shape) < 0.2] = 0
    pixels[random.random(shape) < 0.2] = 255
    return network, pixels


@pytest.mark.parametrize("isa", INT8)
@settings(max_examples=60)
@given(job=jobs(), threads=st.integers(1, 3))
def test_int8_equals_reference(isa: str, job: tuple[Int8Network, Pixels], threads: int) -> None:
    network, pixels = job
    engine = engine_with_garbage(network, isa=isa, threads=threads)
    assert engine.isa == isa
    np.testing.assert_array_equal(engine(pixels), reference.run(network, pixels))


@pytest.mark.parametrize("isa", INT8)
@pytest.mark.parametrize("channels", [1, 3, 17, 64, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_int8_at_the_limits_of_int32(isa: str, channels: int, sign: int) -> None:
    """Every accumulator ends at the last number that int32 holds, or close to it."""
    network = network_at_limits(channels, sign)
    pixels = np.full((1, 5, 6, 3), 255, np.uint8)
    np.testing.assert_array_equal(
        engine_with_garbage(network, isa=isa)(pixels), reference.run(network, pixels)
    )


def network_at_limits(channels: int, sign: int) -> Int8Network:
    """All weights 127 or -127, biases that leave no room, outputs that reach 255."""

    def layer(name: str, kind: Any, before: int, after: int, **fields: Any) -> Int8Layer:
        structure = Layer(name=name, kind=kind, in_channels=before, out_channels=after, **fields)
        weight = np.full(structure.weight_shape, sign * 127, np.int8)
        room = 2**31 - 1 - 255 * 127 * weight[0].size
        bias = np.linspace(sign * room, sign * room // 2, after).astype(np.int32)
        scale = np.full(after, 2.0**-20, np.float32)
        scales = {"input_scale": 1.0, "output_scale": 1.0}
        return Int8Layer(
            **structure.to_dict(), **scales, weight=weight, bias=bias, weight_scale=scale
        )

    relu = {"activation": "relu"}
    layers = (
        layer("conv1", "stem", 3, channels, **relu),
        layer("conv2.depthwise", "depthwise", channels, channels, stride=2, **relu),
        layer("conv2.pointwise", "pointwise", channels, channels, **relu),
        Int8Pool(
            name="avgpool",
            kind="pool",
            in_channels=channels,
            out_channels=channels,
            input_scale=1.0,
            output_scale=1.0,
        ),
        layer("fc", "dense", channels, 7),
    )
    return Int8Network(layers=layers, **described(layers))


@pytest.mark.parametrize("isa", INT8)
def test_int8_of_a_whole_mobilenet(isa: str, int8_network: Int8Network) -> None:
    pixels = random_pixels((3, 96, 65, 3), seed=5)
    expected = reference.run(int8_network, pixels)
    assert len(np.unique(expected)) > expected.size // 2, "the logits must depend on the image"
    np.testing.assert_array_equal(engine_with_garbage(int8_network, isa=isa)(pixels), expected)


# --- float: within a tolerance ------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "isa"), FLOAT_SETS)
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 40)], ids=str)
@pytest.mark.parametrize(
    "arguments",
    [
        MobileNetArguments(0.25, 10),
        MobileNetArguments(0.1, 3, in_channels=1, last_stride=1),
        MobileNetArguments(0.35, 7, padding="same", activation="relu6", last_stride=1),
        MobileNetArguments(0.2, 5, activation="relu6", head_channels=100),
        MobileNetArguments(1.0, 10),
    ],
    ids=repr,
)
def test_float_is_close_to_reference(
    precision: Any, isa: str, size: tuple[int, int], arguments: MobileNetArguments
) -> None:
    network = steady_network(arguments)
    pixels = random_pixels((2, *size, arguments.in_channels))
    expected = reference.run(network, pixels, dtype=np.float64)
    spread = np.ptp(expected)
    assert spread > 0.1, "the logits must depend on the image"
    engine = engine_with_garbage(network, precision=precision, isa=isa)
    assert (engine.precision, engine.isa) == (precision, isa)
    found = engine(pixels)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCES[precision] * spread


# --- what results do not depend on --------------------------------------------------------------

SETS = [*product(["int8"], INT8), *FLOAT_SETS]


def network_for(precision: str, floating: FloatNetwork, int8: Int8Network) -> Any:
    return int8 if precision == "int8" else floating


@pytest.mark.parametrize(("precision", "isa"), SETS)
def test_results_depend_on_the_image_alone(
    precision: Any, isa: str, float_network: FloatNetwork, int8_network: Int8Network
) -> None:
    """Not on threads, more of them than cores too, nor on the batch or on earlier runs."""
    network = network_for(precision, float_network, int8_network)
    pixels = random_pixels((5, 64, 48, 3))
    alone = engine_with_garbage(network, precision, isa=isa)
    expected = np.stack([alone(image) for image in pixels])
    for threads in (1, 2, 3, 7):
        engine = Engine(network, precision, isa=isa, threads=threads)
        for _ in range(2):
            for count in (1, 2, 5):
                np.testing.assert_array_equal(engine(pixels[:count]), expected[:count])
            engine(random_pixels((2, 96, 33, 3)))


@pytest.mark.parametrize("isa", isas("float32"))
def test_results_of_wide_layers_depend_on_the_image_alone(isa: str) -> None:
    """Where pixels are computed in pairs, an odd number of them too."""
    network = steady_network(MobileNetArguments(0.5, 10))
    pixels = random_pixels((3, 97, 131, 3))
    alone = engine_with_garbage(network, isa=isa)
    expected = np.stack([alone(image) for image in pixels])
    for threads in (1, 2, 3, 7):
        found = engine_with_garbage(network, isa=isa, threads=threads)(pixels)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_callers_at_once(threads: int, int8_network: Int8Network) -> None:
    engine = Engine(int8_network, threads=threads)
    images = [random_pixels((1 + k % 3, 32 + 8 * k, 40, 3), seed=k) for k in range(8)]
    expected = [engine(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [engine(image) for image in images], range(24)):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_images_may_lie_anyhow(int8_network: Int8Network) -> None:
    engine = Engine(int8_network)
    pixels = random_pixels((2, 40, 48, 3))
    expected = engine(pixels)
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    flipped = pixels[:, :, ::-1].copy()[:, :, ::-1]
    wide = np.zeros((2, 40, 48, 5), np.uint8)[..., :3]
    wide[:] = pixels
    pixels.flags.writeable = False
    for same in (pixels, planes, flipped, wide):
        np.testing.assert_array_equal(engine(same), expected)
    assert engine(pixels[0]).shape == (10,)
    assert engine(pixels[:0]).shape == (0, 10)


def test_subnormal_numbers_are_back_after_a_run(float_network: FloatNetwork) -> None:
    Engine(float_network)(random_pixels((1, 32, 32, 3)))
    tiny = np.full(16, 1e-40, np.float32)
    assert (tiny * np.float32(0.5) > 0).all()


# --- sources ------------------------------------------------------------------------------------


def test_sources(tmp_path: Path) -> None:
    """A checkpoint and networks, in files of any name and in memory."""
    checkpoint = small_checkpoint()
    floating = lower(checkpoint)
    int8 = quantise(floating, {layer.name: 1.0 for layer in floating.layers[:-1]})
    paths = [tmp_path / name for name in ("a", "b.bin", "ä.safetensors")]
    write_checkpoint(paths[0], checkpoint)
    write_network(paths[1], floating)
    write_network(paths[2], int8)
    pixels = random_pixels((1, 32, 32, checkpoint.arguments.in_channels))
    expected = reference.run(floating, pixels)
    for source in (checkpoint, floating, paths[0], str(paths[1])):
        engine = Engine(source)
        assert engine.precision == "float32"
        assert engine.class_names == checkpoint.class_names
        assert engine.preprocessing == checkpoint.preprocessing
        np.testing.assert_allclose(engine(pixels), expected, rtol=1e-3, atol=1e-5)
    for source in (int8, paths[2]):
        engine = Engine(source)
        assert engine.precision == "int8"
        assert engine.provenance == int8.provenance
        np.testing.assert_array_equal(engine(pixels), reference.run(int8, pixels))


def test_a_path_that_is_no_unicode(tmp_path: Path, int8_network: Int8Network) -> None:
    path = tmp_path / os.fsdecode(b"\xff")
    try:
        write_network(path, int8_network)
    except OSError:
        pytest.skip("this file system holds names in Unicode alone")
    assert Engine(path).class_names == int8_network.class_names


def test_predicts_as_the_reference_does(int8_network: Int8Network) -> None:
    pictures = [photo(k, tint="green") for k in range(3)]
    engine = Engine(int8_network)
    sized = [preprocess(picture, int8_network.preprocessing) for picture in pictures]
    logits = reference.run(int8_network, np.stack(sized))
    for found, expected in zip(engine.predict(pictures, top=3), logits, strict=True):
        best = np.argsort(-expected, kind="stable")[:3]
        assert [name for name, _ in found.labels] == [int8_network.class_names[k] for k in best]
    pixels = random_pixels((9, 32, 32, 3))
    classes = np.arange(9) % 3
    maps = engine.class_activation_map(pixels, classes)
    assert maps.shape == (9, engine.map_side, engine.map_side)
    expected_maps = reference.class_activation_maps(int8_network, pixels, classes)
    np.testing.assert_array_equal(maps, expected_maps)


@pytest.mark.parametrize("head_channels", [0, 24])
def test_profile_has_every_layer(head_channels: int) -> None:
    network = steady_network(MobileNetArguments(0.25, 10, head_channels=head_channels))
    steps = Engine(network).profile(random_pixels((2, 64, 48, 3)), repetitions=3)
    assert [name for step in steps for name in step.layers] == [
        layer.name for layer in network.layers
    ]
    layers = sized_layers(network.layers, 64, 48)
    assert sum(step.multiply_adds for step in steps) == sum(x.multiply_adds for x in layers)
    assert all(step.seconds > 0 and step.activation_bytes > 0 for step in steps)
    assert sum(step.weight_bytes for step in steps) >= sum(x.weights for x in layers)


def test_real_weights_know_real_photos(tmp_path: Path, shared: Path) -> None:
    """From files, through decoder and labels: as many photos as the reference, no fewer."""
    from lucid.importers import import_weights

    checkpoint = import_weights(shared / "models" / "mobilenet_v1_0.25_128_quant.tflite")
    folder = shared / "data" / "imagenet-sample"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = [folder / row["file"] for row in rows]
    truth = np.array([int(row["label"]) for row in rows]) + 1  # after the background
    names = [checkpoint.class_names[k] for k in truth]
    pixels = np.stack([load_image(path, checkpoint.preprocessing) for path in files])
    floating = lower(checkpoint)
    int8 = quantise(floating, measure_ranges(floating, [pixels[::4]]))
    write_checkpoint(tmp_path / "float32", checkpoint)
    write_network(tmp_path / "int8", int8)
    for name, network in {"float32": floating, "int8": int8}.items():
        engine = Engine(tmp_path / name)
        found = [row.labels[0][0] for row in engine.predict(files, top=1)]
        right = sum(one == other for one, other in zip(found, names, strict=True))
        logits = np.concatenate([reference.run(network, part) for part in np.split(pixels, 10)])
        assert right == (logits.argmax(axis=1) == truth).sum()
        assert right >= 90


def test_bfloat16_is_as_near_as_that_of_pytorch(shared: Path) -> None:
    """Published weights, whose wide ranges suit bfloat16 badly, on real photos."""
    import torch

    from lucid.importers import import_weights
    from lucid.models import MobileNet

    checkpoint = import_weights(shared / "models" / "mobilenet_v1_0.25_128_quant.tflite")
    files = sorted((shared / "data" / "imagenet-sample").glob("*.JPEG"))[:40]
    pixels = np.stack([load_image(path, checkpoint.preprocessing) for path in files])
    expected = reference.run(lower(checkpoint), pixels)
    assert expected.std(axis=0).mean() > 1  # the logits do depend on the image
    model = MobileNet.from_arguments(checkpoint.arguments).eval().bfloat16()
    model.load_state_dict({name: torch.tensor(one) for name, one in checkpoint.tensors.items()})
    images = torch.from_numpy(normalise(pixels, checkpoint.preprocessing)).bfloat16()
    with torch.no_grad():
        theirs = model(images).float().numpy()
    ours = Engine(checkpoint, precision="bfloat16")(pixels)
    errors = [np.sqrt(np.square(found - expected).mean()) for found in (ours, theirs)]
    assert 0 < errors[0] < errors[1]


# --- threads and processes ----------------------------------------------------------------------


def test_threads_follow_the_affinity(int8_network: Int8Network) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no CPU affinity on this system")
    assert Engine(int8_network, threads=None).threads == len(os.sched_getaffinity(0))


def test_idle_threads_do_not_spin(int8_network: Int8Network) -> None:
    engine = Engine(int8_network, threads=2)
    engine(random_pixels((1, 64, 64, 3)))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_a_forked_process_has_threads_of_its_own(tmp_path: Path, int8_network: Int8Network) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    path = tmp_path / "network"
    write_network(path, int8_network)
    code = f"""
import os, numpy as np
from lucid.engine import Engine
engine = Engine({str(path)!r}, threads=2)
pixels = np.zeros((1, 64, 64, 3), np.uint8)
expected = engine(pixels)
for _ in range(3):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        os._exit(0 if (engine(pixels) == expected).all() else 1)
assert (engine(pixels) == expected).all()
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, timeout=60)


def test_threads_that_the_system_refuses(tmp_path: Path, int8_network: Int8Network) -> None:
    if sys.platform != "linux":
        pytest.skip("stacks of threads count as memory on Linux")
    path = tmp_path / "network"
    write_network(path, int8_network)
    code = f"""
import resource, numpy as np, lucid
from lucid.errors import ConfigError
pixels = np.zeros((1, 64, 64, 3), np.uint8)
engine = lucid.Engine({str(path)!r}, threads=1024)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        engine(pixels)
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.count("threads: the system does not start 1024 (") == 2
    assert done.stdout.count("); take fewer") == 2


def test_memory_that_the_system_refuses(tmp_path: Path, int8_network: Int8Network) -> None:
    if sys.platform != "linux":
        pytest.skip("the limit of a process's memory is that of Linux")
    path = tmp_path / "network"
    write_network(path, int8_network)
    code = f"""
import resource, numpy as np, lucid
from lucid.errors import OutOfMemoryError
engine = lucid.Engine({str(path)!r})
pixels = np.zeros((1, 6000, 7000, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, resource.RLIM_INFINITY))
for wanted in (pixels, pixels[:, :, ::-1]):
    try:
        engine(wanted)
    except OutOfMemoryError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(engine(pixels[:, :32, :32]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    *refused, shape = done.stdout.splitlines()
    reason = "there is not enough memory to run 1 images of 6000x7000 pixels"
    assert refused == [f"{reason}; give fewer, or smaller ones"] * 2
    assert shape == "(1, 10)"


def test_what_it_says_of_itself(int8_network: Int8Network) -> None:
    engine = Engine(int8_network, isa="scalar", threads=2)
    side = int8_network.preprocessing.resolution
    assert repr(engine) == (
        f"<lucid.Engine: int8 network, {side}x{side}, 10 classes, scalar, 2 threads>"
    )


def test_works_without_torch(tmp_path: Path, int8_network: Int8Network) -> None:
    path = tmp_path / "network"
    write_network(path, int8_network)
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
import lucid
print(lucid.Engine({str(path)!r})(np.zeros((1, 32, 32, 3), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "(1, 10)\n"


# --- choice of instruction set ------------------------------------------------------------------


def test_the_best_set_is_taken(int8_network: Int8Network, monkeypatch: Any) -> None:
    monkeypatch.delenv("LUCID_ISA", raising=False)
    assert Engine(int8_network).isa == INT8[0]


@pytest.mark.parametrize("isa", INT8)
def test_the_variable_forces_a_set(
    isa: str, int8_network: Int8Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_ISA", isa)
    assert Engine(int8_network).isa == isa
    assert Engine(int8_network, isa="scalar").isa == "scalar"


def test_an_unknown_set(int8_network: Int8Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_ISA", "avx3")
    with pytest.raises(ConfigError, match=r"^LUCID_ISA: 'avx3' is no .* here run: .*scalar$"):
        Engine(int8_network)
    with pytest.raises(ConfigError, match=r"^isa: 'avx3' is no"):
        Engine(int8_network, isa="avx3")


def test_a_set_that_this_cpu_lacks(int8_network: Int8Network) -> None:
    lacking = [isa for isa in isas("int8", runnable=False) if isa not in INT8]
    if not lacking:
        pytest.skip("this CPU runs every set of this build")
    with pytest.raises(ConfigError, match=f"^isa: this CPU lacks '{lacking[0]}'; here run: "):
        Engine(int8_network, isa=lacking[0])


# --- what bad input gets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), "got float32 .*0 to 255, not normalised"),
        (np.zeros((1, 32, 32, 3), ">u2"), "got >u2"),
        (np.zeros((1, 32, 32, 3), np.int8), "got int8"),
        (np.zeros((1, 3, 32, 32), np.uint8), r"channels come first: transpose to \(N, H, W, C\)"),
        (np.zeros((32, 32), np.uint8), r"or one \(H, W, 3\), got uint8 \(32, 32\)"),
        (np.zeros((1, 32, 32, 4), np.uint8), r"got uint8 \(1, 32, 32, 4\)"),
        (np.zeros((1, 31, 64, 3), np.uint8), "at least 32x32 pixels, got 31x64"),
        (np.zeros((1, 64, 0, 3), np.uint8), "at least 32x32 pixels, got 64x0"),
        (
            np.broadcast_to(np.uint8(0), (1, 10**6, 10**6, 3)),
            "1000000x1000000 pixels are too large",
        ),
        (["a.jpg"], r"got list; predict\(\) takes a list of files"),
        ("a.jpg", r"got str; predict\(\) takes a list of files"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_another_kind(pixels: Any, message: str, int8_network: Int8Network) -> None:
    engine = Engine(int8_network)
    with pytest.raises(ShapeError, match=message):
        engine(pixels)
    with pytest.raises(ShapeError, match=message):
        engine.profile(pixels)


def test_no_image_has_no_profile(int8_network: Int8Network) -> None:
    with pytest.raises(ShapeError, match="needs an image, got a batch of none"):
        Engine(int8_network).profile(np.zeros((0, 32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision must be one of"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1024"),
        ({"threads": 10**6}, "threads must be a whole number from 1 to 1024"),
        ({"isa": 512}, r"isa must be a name that isas\(\) gives, got 512"),
        ({"isa": "\udc80"}, r"isa must be a name that isas\(\) gives, got '\\udc80'"),
        ({"precision": "float32"}, "the network's weights are int8.*use the checkpoint"),
        ({"precision": "bfloat16"}, "the network's weights are int8.*use the checkpoint"),
    ],
)
def test_bad_arguments(options: Any, message: str, int8_network: Int8Network) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(int8_network, **options)


def test_int8_needs_an_int8_network(tmp_path: Path, float_network: FloatNetwork) -> None:
    path = tmp_path / "model"
    write_checkpoint(path, small_checkpoint())
    for source in (path, small_checkpoint(), float_network):
        with pytest.raises(ConfigError, match="lucid quantize"):
            Engine(source, precision="int8")
    with pytest.raises(ConfigError, match=r"source must be the path of .* got dict"):
        Engine({})  # type: ignore[arg-type]


def test_files_of_another_kind(tmp_path: Path, int8_network: Int8Network) -> None:
    path = tmp_path / "network"
    with pytest.raises(CheckpointError, match="can't be opened"):
        Engine(path)
    path.write_bytes(b"no network at all")
    with pytest.raises(CheckpointError, match=r"network: not a whole safetensors file"):
        Engine(path)
    write_network(path, int8_network)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"network: .*truncated"):
        Engine(path)


def test_calls_are_cheap(int8_network: Int8Network) -> None:
    """What Python adds to a call, on the smallest image; kernels take longer on any real one."""
    engine = Engine(int8_network)
    nothing: NDArray[np.uint8] = np.zeros((0, 32, 32, 3), np.uint8)
    times = []
    for _ in range(300):
        before = time.perf_counter()
        engine(nothing)
        times.append(time.perf_counter() - before)
    assert min(times) < 20e-6
