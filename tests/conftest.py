"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from photo_helpers import photo

if TYPE_CHECKING:
    from lucid.models import MobileNet

# Tests share the machine with one another; threads that wait for each other would make models of
# this size many times slower. Set before torch is imported, and for the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# In the background a shell may ignore Ctrl-C, and programs that the tests start would inherit that:
# those that wait for it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("lucid", deadline=None)
settings.load_profile("lucid")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the cache of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUCID_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the repository, or $LUCID_SHARED."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("LUCID_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set LUCID_SHARED to the folder of real data and models")
    return folder


@pytest.fixture(scope="session")
def flowers(shared: Path) -> Path:
    """4,064 real photos in five class folders."""
    folder = shared / "data" / "flowers"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three class folders, each with ten pictures of one tint."""
    root = tmp_path_factory.mktemp("tiny_photos")
    for first, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for number in range(10):
            photo(10 * first + number, tint=name).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def fixed_model() -> MobileNet:
    """MobileNet(0.25, 10) in eval mode, always the same, whose logits depend on the image."""
    import torch
    from model_helpers import settle_batch_norm

    from lucid.models import MobileNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MobileNet(0.25, 10)
        settle_batch_norm(model, torch.randn(8, 3, 64, 64))
    return model
