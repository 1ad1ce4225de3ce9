"""Fetching data sets: once, checked, and loaded as from a folder."""

import dataclasses
import hashlib
import os
import shutil
import tarfile
import threading
from pathlib import Path

import pandas as pd
import pytest

from skpadim import datasets
from skpadim.datasets import _fetch, fetch_btad, fetch_mvtec_ad, fetch_visa, get_data_home

FETCH = {"mvtec_ad": fetch_mvtec_ad, "btad": fetch_btad, "visa": fetch_visa}
CATEGORY = {"mvtec_ad": "zipper", "btad": "03", "visa": "pcb4"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _pack(name, source, tmp_path):
    """An archive of a data set as its authors pack it."""
    if name == "btad":
        (tmp_path / "packed").mkdir()
        shutil.copytree(source, tmp_path / "packed" / "BTech_Dataset_transformed")
        return shutil.make_archive(str(tmp_path / "btad"), "zip", tmp_path / "packed")
    mode, suffix = ("w:xz", ".tar.xz") if name == "mvtec_ad" else ("w", ".tar")
    path = tmp_path / f"archive{suffix}"
    with tarfile.open(path, mode) as archive:
        for entry in sorted(source.iterdir()):
            archive.add(entry, entry.name)
    return path


@pytest.fixture
def served(tmp_path, make_data_set, serve, monkeypatch):
    """Serve a made-up data set from this machine; gives the server and the folder of images."""

    def start(name, **changes):
        source = make_data_set(name, categories=(CATEGORY[name],), n_train=2)
        content = Path(_pack(name, source, tmp_path)).read_bytes()
        file_name = _fetch.ARCHIVES[name].file_name
        server = serve({f"/{file_name}": content})
        archive = dataclasses.replace(
            _fetch.ARCHIVES[name],
            url=f"{server.url}/{file_name}",
            sha256=changes.get("sha256") or hashlib.sha256(content).hexdigest(),
        )
        monkeypatch.setitem(_fetch.ARCHIVES, name, archive)
        return server, source

    return start


def _home(folder):
    """What is in a data home, locks included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", FETCH)
def test_fetched_once_and_loaded_as_from_a_folder(tmp_path, served, name):
    server, source = served(name)
    home = tmp_path / "home"
    for subset in ("all", "train"):
        images = FETCH[name](CATEGORY[name], data_home=home, subset=subset)
        expected = getattr(datasets, f"load_{name}")(source, CATEGORY[name], subset=subset)
        relative = [Path(path).relative_to(images.root) for path in images.data]
        assert relative == [Path(path).relative_to(expected.root) for path in expected.data]
        pd.testing.assert_series_equal(images.frame["target"], expected.frame["target"])
        assert [Path(path).read_bytes() for path in images.data] == [
            Path(path).read_bytes() for path in expected.data
        ]
    assert len(server.requests) == 1
    assert _home(home) == [name]
    X, y = FETCH[name](CATEGORY[name], data_home=home, return_X_y=True, download_if_missing=False)
    assert len(X) == len(y) > 0


def test_an_interrupted_transfer_goes_on_in_the_next_call(tmp_path, served):
    server, _ = served("visa")
    server.faults = ["drop"]
    with pytest.raises(OSError, match="VisA cannot be had: .* broke off"):
        fetch_visa("pcb4", data_home=tmp_path / "home", n_retries=0)
    assert _home(tmp_path / "home") == [".visa.archive.part"]
    fetch_visa("pcb4", data_home=tmp_path / "home", n_retries=0)
    assert server.ranges[1].startswith("bytes=")
    assert _home(tmp_path / "home") == ["visa"]


def test_errors_say_where_to_get_it_and_where_to_put_it(tmp_path, served):
    server, _ = served("btad")
    home = tmp_path / "home"
    archive = _fetch.ARCHIVES["btad"]
    hint = f"You can download {archive.url} yourself (SHA-256 {archive.sha256}) and put it at "
    hint += str(home / "btad.zip")
    for fault, options, message in (
        (404, {}, "Not Found"),
        (None, {"download_if_missing": False}, "download_if_missing is False"),
    ):
        server.faults = [fault]
        with pytest.raises(OSError, match=message) as caught:
            fetch_btad("03", data_home=home, **options)
        assert hint in str(caught.value)
        assert not (home / "btad").exists()


def test_a_wrong_byte_is_an_error(tmp_path, served):
    server, _ = served("visa", sha256="0" * 64)
    with pytest.raises(OSError, match="has SHA-256"):
        fetch_visa("pcb4", data_home=tmp_path / "home", delay=0.01)
    assert _home(tmp_path / "home") == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("change", ["wrong byte", "a link to another", "none"])
def test_a_stored_archive_is_checked_again_before_it_is_unpacked(
    tmp_path, served, monkeypatch, change
):
    server, _ = served("visa")
    home = tmp_path / "home"
    stored = home / ".visa.archive"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_fetch, "unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_visa("pcb4", data_home=home)
    assert _home(home) == [".visa.archive"]
    content = stored.read_bytes()
    changed = content.replace(b"object,split", b"object,SPLIT")
    assert changed != content
    (tmp_path / "other").write_bytes(changed)
    if change == "wrong byte":
        stored.write_bytes(changed)
    elif change == "a link to another":
        stored.unlink()
        stored.symlink_to(tmp_path / "other")
    fetch_visa("pcb4", data_home=home)
    assert len(server.requests) == (1 if change == "none" else 2)
    assert _home(home) == ["visa"]
    assert (home / "visa/split_csv/1cls.csv").read_bytes().startswith(b"object,split")
    assert (tmp_path / "other").read_bytes() == changed


def test_a_server_that_sends_more_than_the_catalogue_says_is_refused(tmp_path, served, monkeypatch):
    server, _ = served("visa")
    ((_, content),) = server.content.items()
    archive = dataclasses.replace(_fetch.ARCHIVES["visa"], max_bytes=len(content) - 1)
    monkeypatch.setitem(_fetch.ARCHIVES, "visa", archive)
    with pytest.raises(OSError, match=f"{len(content)} bytes, and .* at most {len(content) - 1}"):
        fetch_visa("pcb4", data_home=tmp_path / "home", delay=0.01)
    assert _home(tmp_path / "home") == []
    assert len(server.requests) == 1


def test_a_truncated_archive_leaves_nothing_unpacked(tmp_path, served, monkeypatch):
    server, _ = served("mvtec_ad")
    ((path, content),) = server.content.items()
    server.content[path] = content[: len(content) // 2]
    archive = dataclasses.replace(
        _fetch.ARCHIVES["mvtec_ad"], sha256=hashlib.sha256(server.content[path]).hexdigest()
    )
    monkeypatch.setitem(_fetch.ARCHIVES, "mvtec_ad", archive)
    with pytest.raises(OSError, match="is damaged, or no archive"):
        fetch_mvtec_ad("zipper", data_home=tmp_path / "home")
    assert "mvtec_ad" not in _home(tmp_path / "home")


def test_an_archive_downloaded_by_hand_is_used_and_kept(tmp_path, served):
    server, _ = served("btad")
    home = tmp_path / "home"
    home.mkdir()
    ((_, content),) = server.content.items()
    (home / "btad.zip").write_bytes(content[:-1])
    with pytest.raises(OSError, match=r"btad.zip is another file, or incomplete"):
        fetch_btad("03", data_home=home, download_if_missing=False)
    assert (home / "btad.zip").read_bytes() == content[:-1]
    (home / "btad.zip").write_bytes(content)
    assert len(fetch_btad("03", data_home=home, download_if_missing=False).data)
    assert _home(home) == ["btad", "btad.zip"]
    assert server.requests == []


def test_two_at_once_fetch_once(tmp_path, served):
    server, _ = served("visa")
    lengths = []

    def fetch():
        lengths.append(len(fetch_visa("pcb4", data_home=tmp_path / "home").data))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == 4
    assert len(set(lengths)) == len(server.requests) == 1
    assert _home(tmp_path / "home") == ["visa"]


def test_a_misspelt_category_is_found_before_anything_is_fetched(tmp_path, served):
    server, _ = served("mvtec_ad")
    with pytest.raises(ValueError, match="MVTec AD has no such category. Did you mean 'zipper'?"):
        fetch_mvtec_ad("ziper", data_home=tmp_path / "home")
    assert server.requests == []
    assert not (tmp_path / "home").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_home_that_cannot_be_written_to(tmp_path, served):
    served("visa")
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with pytest.raises(OSError, match="VisA cannot be had: .*Permission denied"):
        fetch_visa("pcb4", data_home=home)


def test_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("SKPADIM_DATA", raising=False)
    assert get_data_home() == tmp_path / "skpadim_data"
    monkeypatch.setenv("SKPADIM_DATA", str(tmp_path / "elsewhere"))
    assert get_data_home() == tmp_path / "elsewhere"
    assert get_data_home("~/here") == tmp_path / "here"
