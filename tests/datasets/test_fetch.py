"""Fetching data sets: once, checked, unpacked whole or not at all, and loaded as from a folder."""

import dataclasses
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim import datasets
from skpadim.datasets import _fetch, fetch_btad, fetch_mvtec_ad, fetch_visa, get_data_home
from skpadim.datasets._fetch import ArchiveError, unpack

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


FILES = {"a.txt": b"first", "folder/b.bin": bytes(100_000), "folder/deep/c": b""}


def _write_tar(path, files=FILES, links=(), mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return path


def _write_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _write(path, files):
    return _write_zip(path, files) if path.suffix == ".zip" else _write_tar(path, files)


def _read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["x.tar", "x.tar.xz", "x.tar.gz", "x.zip"])
def test_all_files_are_unpacked(tmp_path, name):
    archive = tmp_path / name
    if name.endswith("zip"):
        _write_zip(archive)
    else:
        _write_tar(archive, mode=f"w:{archive.suffix[1:]}" if archive.suffix != ".tar" else "w")
    unpack(archive, tmp_path / "new" / "target", "Unpacking")
    assert _read(tmp_path / "new" / "target") == FILES
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize(
    "name", ["../x", "folder/../../x", "/tmp/x", "..\\x", "C:\\x", "C:/x", "\\\\host\\share\\x"]
)
def test_no_member_leaves_the_folder(tmp_path, suffix, name):
    root = tmp_path / "root"
    root.mkdir()
    archive = _write(tmp_path / f"x{suffix}", {"a.txt": b"fine", name: b"outside"})
    with pytest.raises(ArchiveError, match="would be written outside of the folder"):
        unpack(archive, root / "target")
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = _write_tar(tmp_path / "x.tar", links=[("link", kind, "/etc")])
    with pytest.raises(ArchiveError, match="holds 'link', which is neither a file nor a folder"):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.xz", "x.tar.gz", "x.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_leaves_nothing(tmp_path, name, share):
    archive = tmp_path / name
    files = {f"{index}.bin": bytes(range(256)) * 100 for index in range(20)}
    if name.endswith("zip"):
        _write_zip(archive, files)
    else:
        _write_tar(archive, files, mode=f"w:{archive.suffix[1:].replace('tar', '')}")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArchiveError, match="is damaged, or no archive"):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, error):
    archive = _write_tar(tmp_path / "x.tar")

    def stop(source, file, _):
        if source.read():
            file.write(b"half")
            raise error

    monkeypatch.setattr(_fetch.shutil, "copyfileobj", stop)
    expected = ArchiveError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_what_a_killed_process_left_is_removed(tmp_path):
    archive = _write_zip(tmp_path / "x.zip")
    program = (
        "import os, pathlib, signal, sys\n"
        "from skpadim.datasets import _fetch\n"
        "_fetch.shutil.copyfileobj = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_fetch.unpack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, archive, tmp_path / "target"],
        cwd=Path(__file__).parents[2],
    )
    (left,) = set(tmp_path.iterdir()) - {archive}
    assert (left / "a.txt").read_bytes() == b""
    unpack(archive, tmp_path / "target")
    assert _read(tmp_path / "target") == FILES
    shutil.rmtree(tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


def _patch(archive, **fields):
    """Change fields of all of a zip's members, in both of the places where they stand."""
    content = bytearray(archive.read_bytes())
    for mark, places in ((b"PK\3\4", (6, 8)), (b"PK\1\2", (8, 10))):
        place = content.find(mark)
        while place >= 0:
            for name, offset in zip(("flags", "method"), places, strict=True):
                if name in fields:
                    content[place + offset : place + offset + 2] = fields[name].to_bytes(
                        2, "little"
                    )
            place = content.find(mark, place + 4)
    archive.write_bytes(content)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flags": 1}, r"x.zip is encrypted \('a.txt'\)"),
        ({"flags": 0x41}, r"x.zip is encrypted \('a.txt'\)"),
        ({"flags": 0x20}, r"x.zip is damaged, or no archive \(compressed patched data"),
        ({"method": 97}, r"x.zip is damaged, or no archive \(.*compression.* not supported"),
        ({"method": 8}, "x.zip is damaged, or no archive"),
        ({"method": 12}, "x.zip (is damaged|cannot be unpacked)"),
        ({"method": 14}, "x.zip is damaged, or no archive"),
    ],
)
def test_odd_zips_are_told_in_words(tmp_path, fields, message):
    archive = _write_zip(tmp_path / "x.zip")
    _patch(archive, **fields)
    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zips_are_refused(tmp_path, kind):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        member = zipfile.ZipInfo("link")
        member.external_attr = (kind | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    with pytest.raises(ArchiveError, match="holds 'link', which is neither a file nor a folder"):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("files", [{"large": bytes(2**20)}, {f"{i}": b"" for i in range(20)}])
def test_what_would_fill_the_disk_is_refused_before_it_does(tmp_path, monkeypatch, suffix, files):
    monkeypatch.setattr(_fetch, "_MAX_BYTES", 2**15)
    archive = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
    else:
        _write_tar(archive, files, mode="w:gz")
    monkeypatch.setattr(_fetch, "_MAX_RATIO", 2)
    with pytest.raises(ArchiveError, match="would take up more than 2 times its size"):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"PK\3\4"])
def test_what_is_no_archive_is_told(tmp_path, content):
    archive = tmp_path / "x.zip"
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged, or no archive"):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"]),
    st.lists(st.tuples(st.integers(-1000, 999), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_no_damage_is_anything_but_an_archive_error(suffix, changes):
    """Bytes changed at the start and at the end, where formats keep names, sizes and offsets."""
    with TemporaryDirectory() as folder:
        archive, target = Path(folder, f"x{suffix}"), Path(folder, "target")
        if suffix == ".zip":
            _write_zip(archive)
        else:
            _write_tar(archive, mode=f"w:{suffix[5:]}" if len(suffix) > 4 else "w")
        content = bytearray(archive.read_bytes())
        for place, change in changes:
            content[place % len(content)] ^= change
        archive.write_bytes(content)
        with suppress(ArchiveError):
            unpack(archive, target)
            shutil.rmtree(target)
        assert list(Path(folder).iterdir()) == [archive]
