"""Unpacking: nothing outside, and all or nothing."""

import io
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.datasets import _archives
from skpadim.datasets._archives import ArchiveError, unpack

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

    monkeypatch.setattr(_archives.shutil, "copyfileobj", stop)
    expected = ArchiveError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        unpack(archive, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_what_a_killed_process_left_is_removed(tmp_path):
    archive = _write_zip(tmp_path / "x.zip")
    program = (
        "import os, pathlib, signal, sys\n"
        "from skpadim.datasets import _archives\n"
        "_archives.shutil.copyfileobj = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_archives.unpack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
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
    monkeypatch.setattr(_archives, "_MAX_BYTES", 2**15)
    archive = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
    else:
        _write_tar(archive, files, mode="w:gz")
    monkeypatch.setattr(_archives, "_MAX_RATIO", 2)
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
