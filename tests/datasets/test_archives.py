"""Unpacking: nothing outside, and all or nothing."""

import io
import shutil
import tarfile
import zipfile

import pytest

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


def test_what_a_killed_process_left_is_replaced(tmp_path):
    archive = _write_zip(tmp_path / "x.zip")
    left = tmp_path / ".target.unpacking"
    left.mkdir()
    (left / "old").write_text("half")
    unpack(archive, tmp_path / "target")
    assert _read(tmp_path / "target") == FILES
    shutil.rmtree(tmp_path / "target")
    assert list(tmp_path.iterdir()) == [archive]
