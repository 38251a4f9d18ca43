"""Models are found by their name on a hub: over real HTTP, with the real huggingface_hub."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub, serving, sha256
from import_helpers import load
from model_helpers import difference, import_reference, settle_batch_norm
from safetensors.torch import save
from training_helpers import QUICK, coloured_squares

from lucid.checkpoint import read_checkpoint
from lucid.errors import (
    CheckpointError,
    ConfigError,
    DownloadError,
    MissingDependencyError,
    OutputError,
)
from lucid.importers import import_weights
from lucid.importers.hub import Name, parse_name
from lucid.importers.sources import find_source
from lucid.models import MobileNet, mobilenet
from lucid.training import Progress, train

TIMM = "timm/mobilenetv1_100.ra4_e3600_r224_in1k"
GOOGLE = "google/mobilenet_v1_0.75_192"


def reference_files(model: Any, folder: Path) -> dict[str, bytes]:
    model.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, bytes]]:
    """A network of transformers as google/mobilenet_v1_0.75_192, and its files; random weights."""
    transformers = import_reference("transformers")
    config = transformers.MobileNetV1Config(
        num_labels=1001, depth_multiplier=0.75, image_size=192, hidden_act="relu6"
    )
    model = transformers.MobileNetV1ForImageClassification(config)
    model.config.id2label = {i: "background" if i == 0 else f"thing {i}" for i in range(1001)}
    settle_batch_norm(model, torch.randn(3, 3, 64, 64))
    files = reference_files(model, tmp_path_factory.mktemp("google"))
    files["preprocessor_config.json"] = json.dumps(
        {
            "size": {"shortest_edge": 256},
            "crop_size": {"height": 192, "width": 192},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
        }
    ).encode()
    files["README.md"] = b"# not needed"
    return model, files


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(
    server: Hub,
    google: tuple[Any, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Hub:
    """A hub that has one model and has not yet been asked, and an empty cache."""
    from huggingface_hub import constants

    fresh = Hub(url=server.url, models={GOOGLE: dict(google[1])})
    vars(server).update(vars(fresh))
    # The package reads its environment when it is imported, which is long ago.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lucid.importers.transfer._PAUSE", 0)
    monkeypatch.chdir(tmp_path)
    return server


def files_in(folder: Path) -> list[str]:
    """The names of all files with content, of the cache's own tag apart."""
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"
    )


def refused(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        import_weights(name)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_transformers_by_name(hub: Hub, google: tuple[Any, dict[str, bytes]]) -> None:
    checkpoint = import_weights(GOOGLE)
    images = torch.randn(2, 3, 192, 192)
    assert difference(load(checkpoint)(images), google[0](images).logits) < 1e-5
    assert checkpoint.arguments.width_multiplier == 0.75
    assert checkpoint.class_names[:2] == ("background", "thing 1")
    assert checkpoint.preprocessing.resolution == 192
    assert checkpoint.preprocessing.crop_fraction == 0.75
    assert checkpoint.provenance["source"] == f"{GOOGLE}@{hub.commit(GOOGLE)}"
    assert checkpoint.provenance["assumed"] == []
    assert not any("README" in path for _, path, _ in hub.requests), "only what is needed"


@torch.no_grad()
def test_timm_by_name_over_a_connection_that_breaks(hub: Hub) -> None:
    timm = import_reference("timm")
    model = timm.create_model("mobilenetv1_100", num_classes=1000)
    settle_batch_norm(model, torch.randn(3, 3, 64, 64))
    config = {"architecture": "mobilenetv1_100", "pretrained_cfg": model.pretrained_cfg}
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    hub.models = {
        TIMM: {"config.json": json.dumps(config).encode(), "model.safetensors": save(state)}
    }
    images = torch.randn(2, 3, 96, 96)
    hub.broken_after, hub.breaks = 12_000_000, 1
    assert difference(mobilenet(weights=TIMM)(images), model(images)) < 1e-5
    assert hub.downloads(".safetensors") == [None, "bytes=12000000-"]
    assert hub.sent == len(hub.models[TIMM]["model.safetensors"])
    by_revision = mobilenet(1.0, 7, weights=f"{TIMM}@{hub.commit(TIMM)}")
    assert by_revision(images).shape == (2, 7)
    assert not any("preprocessor" in path for _, path, _ in hub.requests)


def test_weights_in_pickle_only(
    hub: Hub, google: tuple[Any, dict[str, bytes]], tmp_path: Path
) -> None:
    torch.save(google[0].state_dict(), tmp_path / "w.bin")
    del hub.models[GOOGLE]["model.safetensors"]
    hub.models[GOOGLE]["pytorch_model.bin"] = (tmp_path / "w.bin").read_bytes()
    assert import_weights(GOOGLE).arguments.width_multiplier == 0.75


def test_the_cache_is_used(hub: Hub) -> None:
    first = find_source(GOOGLE)
    hub.requests.clear()
    assert find_source(GOOGLE) == first
    assert {method for method, _, _ in hub.requests} == {"HEAD"}, "nothing is sent twice"
    hub.models[GOOGLE]["preprocessor_config.json"] = b"{}"
    second = find_source(GOOGLE)
    assert second.name == f"{GOOGLE}@{hub.commit(GOOGLE)}" != first.name
    assert second.weights.with_name("preprocessor_config.json").read_bytes() == b"{}"
    assert hub.downloads(".safetensors") == [], "the weights are still the same"


def test_a_download_that_never_ends_well(hub: Hub, tmp_path: Path) -> None:
    hub.broken_after, hub.breaks = 0, 1000
    refused(GOOGLE, DownloadError, r"the download of model\.safetensors broke off .*; try again")
    assert not any("model.safetensors" in name for name in files_in(tmp_path))
    hub.breaks = 0
    find_source(GOOGLE)
    assert not any("incomplete" in name for name in files_in(tmp_path))


def test_two_calls_at_once(hub: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(find_source, [GOOGLE, GOOGLE])
    assert first == second
    assert hub.downloads(".safetensors") == [None]


class TestAnEarlierCall:
    """What a call that ended in mid-download has left is gone on with, if it is worth it."""

    CAME = 7_000_000

    def begin(self, hub: Hub, tmp_path: Path, content: bytes | None = None) -> Path:
        """Leave behind what a killed process does; ``content`` in place of what it had."""
        weights = hub.models[GOOGLE]["model.safetensors"]
        folder = tmp_path / "cache" / "models--google--mobilenet_v1_0.75_192" / "blobs"
        folder.mkdir(parents=True)
        partial = folder / f"{sha256(weights)}.incomplete"
        partial.write_bytes(weights[: self.CAME] if content is None else content)
        return partial

    def test_killed(self, hub: Hub, tmp_path: Path) -> None:
        """By a signal that no process can answer."""
        weights = hub.models[GOOGLE]["model.safetensors"]
        hub.stalled_after = self.CAME
        words = [sys.executable, "-m", "lucid", "import", GOOGLE]
        process = subprocess.Popen(words, env=environment(hub, tmp_path / "home"))
        deadline = time.monotonic() + 60
        while not (came := list((tmp_path / "home").rglob("*.incomplete"))) or (
            came[0].stat().st_size < self.CAME
        ):
            assert process.poll() is None, "it ended before the download"
            assert time.monotonic() < deadline, "no download began"
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert hub.downloads(".safetensors") == [None]
        hub.requests.clear()
        hub.sent = 0
        again = command(hub, tmp_path / "home")(GOOGLE, "--out", "a.safetensors")
        assert again.returncode == 0, again.stderr
        assert hub.downloads(".safetensors") == [f"bytes={self.CAME}-"]
        assert hub.sent == len(weights) - self.CAME
        (found,) = (tmp_path / "home").rglob("model.safetensors")
        assert found.read_bytes() == weights
        assert not list((tmp_path / "home").rglob("*.incomplete"))

    def test_ranges_are_ignored(self, hub: Hub, tmp_path: Path) -> None:
        """The answer is 200 and the whole file, not 206 and the rest."""
        self.begin(hub, tmp_path)
        hub.ignores_range = True
        weights = hub.models[GOOGLE]["model.safetensors"]
        assert find_source(GOOGLE).weights.read_bytes() == weights
        assert hub.downloads(".safetensors") == [f"bytes={self.CAME}-"]
        assert hub.sent == len(weights)

    def test_the_model_has_changed(self, hub: Hub, tmp_path: Path) -> None:
        """A file with another checksum is begun anew."""
        self.begin(hub, tmp_path)
        weights = hub.models[GOOGLE]["model.safetensors"][:-1] + b"!"
        hub.models[GOOGLE]["model.safetensors"] = weights
        assert find_source(GOOGLE).weights.read_bytes() == weights
        assert hub.downloads(".safetensors") == [None]

    def test_what_is_there_is_something_else(self, hub: Hub, tmp_path: Path) -> None:
        """The whole is wrong, so it is thrown away, and all of it comes once more."""
        self.begin(hub, tmp_path, bytes(self.CAME))
        weights = hub.models[GOOGLE]["model.safetensors"]
        assert find_source(GOOGLE).weights.read_bytes() == weights
        assert hub.downloads(".safetensors") == [f"bytes={self.CAME}-", None]

    def test_both_are_wrong(self, hub: Hub, tmp_path: Path) -> None:
        partial = self.begin(hub, tmp_path, bytes(self.CAME))
        hub.spoil = True
        refused(GOOGLE, DownloadError, r"model\.safetensors has the wrong checksum")
        assert not partial.exists()

    @pytest.mark.parametrize("surplus", [-1, 0, 1])
    def test_all_of_it_is_there(self, surplus: int, hub: Hub, tmp_path: Path) -> None:
        weights = hub.models[GOOGLE]["model.safetensors"]
        self.begin(hub, tmp_path, (weights + b"!")[: len(weights) + surplus])
        assert find_source(GOOGLE).weights.read_bytes() == weights
        assert hub.sent == {-1: 1, 0: 0, 1: len(weights)}[surplus]

    def test_it_is_longer_than_what_is_sent(self, hub: Hub, tmp_path: Path) -> None:
        """Asked for what lies beyond the end, the server answers 416: the size it said is wrong."""
        weights = hub.models[GOOGLE]["model.safetensors"]
        partial = self.begin(hub, tmp_path, weights)
        hub.surplus = 1
        size = len(weights)
        refused(GOOGLE, DownloadError, rf"sends {size} bytes where {size + 1} are announced")
        assert hub.downloads(".safetensors") == [f"bytes={size}-", None]
        assert not partial.exists()


def test_wrong_checksum(hub: Hub, tmp_path: Path) -> None:
    hub.spoil = True
    refused(GOOGLE, DownloadError, r"model\.safetensors has the wrong checksum, .*try again")
    assert not any("model.safetensors" in name for name in files_in(tmp_path))
    hub.spoil = False
    find_source(GOOGLE)


@pytest.mark.usefixtures("hub")
def test_damage_in_the_cache_is_found(tmp_path: Path) -> None:
    find_source(GOOGLE)
    (config,) = (tmp_path / "cache").rglob("config.json")
    config.write_text(config.read_text().replace("0.75", "0.25"))
    refused(GOOGLE, DownloadError, r"config\.json has the wrong checksum")
    find_source(GOOGLE)


def test_wrong_size(hub: Hub) -> None:
    hub.surplus = 10
    refused(GOOGLE, DownloadError, r"model\.safetensors sends \d+ bytes where \d+ are announced")


def test_too_large(hub: Hub) -> None:
    hub.surplus = 10**12
    refused(GOOGLE, DownloadError, r"model\.safetensors has 10000\d+ bytes; the limit is 536870912")
    assert hub.downloads(".safetensors") == []


def test_more_than_announced(hub: Hub, tmp_path: Path) -> None:
    hub.surplus = -20
    announced = len(hub.models[GOOGLE]["model.safetensors"]) - 20
    refused(GOOGLE, DownloadError, rf"model\.safetensors sends more than the {announced} bytes")
    assert not any("safetensors" in name or "incomplete" in name for name in files_in(tmp_path))


def test_another_architecture_is_not_downloaded(hub: Hub) -> None:
    for config, kind in (
        ({"architecture": "resnet50"}, "resnet50"),
        ({"model_type": "bert"}, "bert"),
    ):
        hub.models[GOOGLE]["config.json"] = json.dumps(config).encode()
        refused(
            GOOGLE, CheckpointError, f"expected a model of the type mobilenet_v1, found '{kind}'"
        )
    assert not any("safetensors" in path for _, path, _ in hub.requests)


def test_not_found(hub: Hub) -> None:
    wrong = "google/mobilenet_v2"
    refused(wrong, DownloadError, rf"{wrong}: there is no such file .* no such model.*{TIMM}")
    refused(f"{GOOGLE}@nowhere", DownloadError, "there is no revision nowhere")
    del hub.models[GOOGLE]["model.safetensors"]
    refused(GOOGLE, DownloadError, r"has none of model\.safetensors, pytorch_model\.bin")
    del hub.models[GOOGLE]["config.json"]
    refused(GOOGLE, DownloadError, r"has no config\.json; expected a MobileNet-V1 of timm or")
    refused("google/a--b", DownloadError, "no name of a model")


def test_gated(hub: Hub) -> None:
    hub.gated.add(GOOGLE)
    refused(GOOGLE, DownloadError, "its owner gives access on request; .*hf auth login")


@pytest.mark.usefixtures("hub")
def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    found = find_source(GOOGLE)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert find_source(GOOGLE) == found, "from the cache"
        words = rf"{TIMM}: .* config\.json is not in the cache, .*{url} can't be reached \(.*folder"
        refused(TIMM, DownloadError, words)


def test_a_hub_that_fails(hub: Hub) -> None:
    hub.status = 503
    refused(GOOGLE, DownloadError, "can't be reached .*503")
    hub.status = 0
    found = find_source(GOOGLE)
    hub.status = 503
    assert find_source(GOOGLE) == found


def test_an_address_that_is_no_hub(hub: Hub) -> None:
    hub.status = 200
    refused(GOOGLE, DownloadError, "does not answer as a hub does; see HF_ENDPOINT")


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    found = find_source(GOOGLE)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (GOOGLE, f"{GOOGLE}@{hub.commit(GOOGLE)}"):
        assert find_source(name) == found
    refused(TIMM, DownloadError, "HF_HUB_OFFLINE is set; unset it, or give a folder")
    (weights,) = (tmp_path / "cache").rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    refused(GOOGLE, DownloadError, r"model\.safetensors has the wrong checksum")
    assert hub.requests == []


def test_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
        refused(GOOGLE, OutputError, r"cache: 10 MB are needed, 0 MB are free; make room")
    assert hub.downloads(".safetensors") == []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("lucid.importers.hub.transfer", full)
        refused(GOOGLE, OutputError, r"cache: can't write here \(No space left.*HF_HOME")


def test_training_starts_from_a_name_or_a_foreign_file(hub: Hub, tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "data", images=4)
    said = []

    class Listener(Progress):
        def message(self, text: str) -> None:
            said.append(text)

    options = {"out": tmp_path / "run", "recipe": QUICK | {"epochs": 1}, "progress": Listener()}
    result = train(data, weights=GOOGLE, resolution=32, **options)
    words = "transformers, width 0.75, resolution 32, 1001 classes"
    assert said[0] == f"starting from {GOOGLE}: {words}"
    checkpoint = read_checkpoint(result.checkpoint)
    assert (checkpoint.arguments.padding, checkpoint.arguments.activation) == ("same", "relu6")
    assert checkpoint.provenance["weights"] == sha256(hub.models[GOOGLE]["model.safetensors"])
    again = train(data, weights=GOOGLE, resume=True, **options)
    assert again.rows == result.rows
    torch.save(MobileNet(0.75, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"weights is .* but the run to resume has"):
        train(data, weights=tmp_path / "w.pth", resume=True, **options)
    train(data, weights=tmp_path / "w.pth", resolution=32, **{**options, "out": tmp_path / "other"})
    (words,) = (text for text in said if "w.pth: pytorch, width 0.75" in text)
    assert "doesn't say how pixels are normalised: taken mean (0.5, 0.5, 0.5)" in words


class TestNames:
    """Only what can't be meant as a path becomes a request."""

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            (TIMM, Name(TIMM)),
            (GOOGLE, Name(GOOGLE)),
            (f"{GOOGLE}@v1", Name(GOOGLE, "v1")),
            (f"{GOOGLE}@refs/pr/1", Name(GOOGLE, "refs/pr/1")),
            ("here/model", None),
            ("here/model@main", Name("here/model", "main")),
            ("timm/model.safetensors", None),
            ("timm/model.TFLITE", None),
            ("./timm/model", None),
            ("/timm/model", None),
            ("../model", None),
            ("a/b/c", None),
            ("model", None),
            ("timm\\model", None),
            ("timm/", None),
            ("", None),
        ],
    )
    def test_parsing(
        self, text: str, name: Name | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here").mkdir()
        assert parse_name(text) == name

    @pytest.mark.parametrize("text", ["here/modle", "modle", "no/where.tflite", "", "a" * 5000])
    def test_a_slip_of_the_pen_asks_nobody(self, text: str, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        with pytest.raises(CheckpointError, match=r"no such file|can't be opened|holds none"):
            import_weights(text)
        assert hub.requests == []

    def test_what_is_here_wins(self, hub: Hub, google: Any, tmp_path: Path) -> None:
        folder = tmp_path / GOOGLE
        google[0].save_pretrained(folder)
        assert import_weights(GOOGLE).provenance["source"] == folder.name
        with pytest.raises(CheckpointError, match="can't be opened"):
            import_weights(Path(TIMM))
        assert hub.requests == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(GOOGLE, MissingDependencyError, r"huggingface_hub.*lucid-mobilenet\[import\]")


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder)}


def command(hub: Hub, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``lucid import`` in an environment of its own, as a user has it."""

    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lucid", "import", *words],
            env=environment(hub, folder) | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_command(hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE as a user sets them."""
    run = command(hub, tmp_path / "home")
    online = run(GOOGLE, "--out", "a.safetensors")
    assert online.returncode == 0, online.stderr
    assert online.stdout == "a.safetensors: width 0.75, resolution 192, 1001 classes\n"
    assert list((tmp_path / "home").rglob("model.safetensors"))
    hub.requests.clear()
    offline = run(GOOGLE, "--out", "b.safetensors", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert hub.requests == []
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    source = read_checkpoint("a.safetensors").provenance["source"]
    assert source == f"{GOOGLE}@{hub.commit(GOOGLE)}"
