"""Settings that must be in place before a test imports anything, and fixtures that all tests share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # torch reads these when it is first imported: several workers with a thread per core each would get in each other's
    # way. Not torch.set_num_threads: importing torch here would cost the tests that do without it some seconds.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger data sets beside the repository (`../shared/data`), which a plain clone does not have."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data sets in {folder}, which are not part of the repository")
    return folder
