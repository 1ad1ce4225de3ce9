"""Outputs: known to be writable before any work, whole or not at all, and no debris."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from skpadim.files import _files
from skpadim.files._files import check_output_file, folder_written_whole, locked, written_whole

unix = pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes of Unix")
ROOT = Path(__file__).parents[2]


def _write(path, content="new"):
    with written_whole(path) as part:
        part.write_text(content)


def _run(program, *arguments, **options):
    """Run a program that has the functions to test."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from skpadim.files._files import *\n"
        "path = Path(sys.argv[1]) if len(sys.argv) > 1 else None\n" + textwrap.dedent(program)
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        **options,
    )


def _killed_inside(context, path):
    """Kill a process as it is in a context of this module."""
    process = _run(
        f"""
        with {context}(path) as part:
            if part is not None and part.is_dir():
                (part / "half").write_text("half")
            elif part is not None:
                part.write_text("half")
            print("inside", flush=True)
            time.sleep(60)
        """,
        path,
    )
    assert process.stdout.readline() == b"inside\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_file_appears_whole_and_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.csv"
    check_output_file(path)
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with written_whole(path) as part:
            part.write_text(content)
            assert part.parent == path.parent
            assert not path.exists() or path.read_text() != content
        assert path.read_text() == content
        check_output_file(path)
    with pytest.raises(RuntimeError), written_whole(path) as part:  # noqa: PT012
        part.write_text("three")
        raise RuntimeError
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".csv", "é" * 125 + ".csv", "a." + "x" * 253, "ü" * 127]
)
def test_the_longest_names_are_fine_and_longer_ones_are_told(tmp_path, name):
    assert 250 <= len(os.fsencode(name)) <= 255
    check_output_file(tmp_path / name)
    _write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    long = tmp_path / f"{name}{'y' * (256 - len(os.fsencode(name)))}"
    for function in (check_output_file, _write):
        with pytest.raises(OSError, match=r"cannot be written \(File name too long\)"):
            function(long)


def test_the_temporary_name_ends_as_the_other(tmp_path):
    for name in ("model.joblib.gz", "x" * 240 + ".tiff"):
        with written_whole(tmp_path / name) as part:
            assert part.name.endswith("".join(Path(name).suffixes))


@unix
def test_names_that_are_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.csv"))
    check_output_file(path)
    _write(path)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.csv"]


@pytest.mark.parametrize("name", ["a\0b", "lone \ud800 surrogate"])
def test_what_is_no_name_is_told(tmp_path, name):
    for function in (check_output_file, _write):
        with pytest.raises(ValueError, match="can be no file's name"):
            function(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_and_a_folder_are_told(tmp_path):
    (tmp_path / "file").touch()
    for function in (check_output_file, _write):
        for place in ("no", "file"):
            with pytest.raises(FileNotFoundError, match=f"{place}, the folder of x, does not exi"):
                function(tmp_path / place / "x")
        with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
            function(tmp_path)


# Root may write anywhere, so what is closed is looked at as somebody else.
_AS_NOBODY = """
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    def write(path):
        with written_whole(path) as part:
            part.write_text("new")
    for function in (check_output_file, write):
        try:
            function(path)
            print("fine")
        except OSError as error:
            print(type(error).__name__, error)
"""


@unix
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "message"),
    [
        (0o777, None, None),
        (0o777, 0o666, None),
        (0o555, None, "this user has no permission to write to its folder"),
        (0o555, 0o666, "this user has no permission to write to its folder"),
        (0o777, 0o444, "is there, and this user may not change it"),
        (0o666, None, "Permission denied"),
        (0o1777, 0o666, "is another user's, and in its folder nobody else may replace it"),
    ],
)
def test_what_is_closed_is_told_before_the_work_and_after_it(
    tmp_path, folder_mode, file_mode, message
):
    if folder_mode & stat.S_ISVTX and os.geteuid() != 0:
        pytest.skip("takes two users")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "out.csv"
    if file_mode is not None:
        path.write_text("old")
        path.chmod(file_mode)
    folder.chmod(folder_mode)
    for parent in tmp_path.parents:  # pytest's own are closed to others
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    try:
        process = _run(_AS_NOBODY, path)
        output, error = process.communicate()
        assert error == b""
        for line in output.decode().splitlines():
            assert line == "fine" if message is None else message in line and str(path) in line
        assert len(output.splitlines()) == 2
    finally:
        folder.chmod(0o777)
    if message is not None:
        assert [each.read_text() for each in folder.iterdir()] == ["old"] * (file_mode is not None)


@unix
def test_the_mode_of_what_is_replaced_is_kept_and_a_new_file_gets_the_usual_one(tmp_path):
    before = os.umask(0o027)
    try:
        _write(tmp_path / "new")
        with folder_written_whole(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    for mode in (0o600, 0o664, 0o777):
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(mode)
        with written_whole(tmp_path / "old") as part:
            assert stat.S_IMODE(part.stat().st_mode) & ~mode & 0o077 == 0  # nor is it open before
            part.write_text("x")
        assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == mode


@unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root")
def test_root_leaves_a_file_to_its_owner(tmp_path):
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 1234, 2345)
    _write(tmp_path / "file")
    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)


@unix
def test_links_are_followed_to_what_is_meant_and_no_others(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for target in ("folder/there", "folder/not yet"):
        link = tmp_path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        check_output_file(link)
        _write(link)
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"
    # One that has been laid where the temporary file goes.
    victim = tmp_path / "victim"
    victim.write_text("precious")
    tokens = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr(_files.secrets, "token_hex", lambda _: next(tokens))
    (tmp_path / f".skpadim-{_files._MACHINE}-{'0' * 16}-x").symlink_to(victim)
    with pytest.raises(FileExistsError):
        _write(tmp_path / "x")
    assert victim.read_text() == "precious"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match=r"circle cannot be written \(Too many levels"):
        check_output_file(tmp_path / "circle")


@unix
def test_pipes_and_devices_get_all_at_the_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output_file(pipe)  # nobody reads yet, and it does not wait
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with written_whole(pipe) as part, open(part, "wb") as file:
        file.write(b"0000end")
        file.seek(0)  # as writers of pictures do
        file.write(b"head")
    reader.join()
    assert got == [b"headend"]
    check_output_file(Path("/dev/null"))
    _write(Path("/dev/null"))
    assert not Path("/dev/null").is_file()
    assert list(tmp_path.iterdir()) == [pipe]


@unix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_the_standard_output_goes_on(tmp_path, name, kind):
    if not os.path.exists(os.path.dirname(name)):
        pytest.skip("not on this system")
    program = f"""
    path = Path({name!r})
    check_output_file(path)
    print("before", flush=True)
    with written_whole(path) as part:
        part.write_text("table\\n")
    print("after", flush=True)
    """
    process = _run(program)
    if kind == "file":
        process.kill()
        process.communicate()
        with open(tmp_path / "log", "wb") as log:
            log.write(b"first\n")
            log.flush()
            subprocess.run(process.args, stdout=log, check=True, cwd=ROOT)
        assert (tmp_path / "log").read_text() == "first\nbefore\ntable\nafter\n"
    else:
        assert process.communicate() == (b"before\ntable\nafter\n", b"")


@unix
@pytest.mark.parametrize("context", ["written_whole", "folder_written_whole", "locked"])
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, context):
    others = [".skpadim-notes", ".skpadim-00000000-0123456789abcdef-x", ".out.part"]
    for name in others:
        (tmp_path / name).write_text("not ours")
    _killed_inside(context, tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    check_output_file(tmp_path / "another")
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    _killed_inside(context, tmp_path / "out")
    process = _run("with written_whole(path) as part: part.write_text('x')", tmp_path / "another")
    process.communicate()
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "another"])


def test_what_others_are_writing_is_left_alone(tmp_path):
    with written_whole(tmp_path / "file") as part, folder_written_whole(tmp_path / "f") as folder:
        part.write_text("x")
        (folder / "x").touch()
        process = _run(
            "check_output_file(path)\nwith written_whole(path) as part: part.write_text('y')",
            tmp_path / "other",
        )
        assert process.communicate() == (b"", b"")
        check_output_file(tmp_path / "other")
    assert (tmp_path / "file").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["f", "file", "other"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("sync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("name"), replace(*names)))
    _write(tmp_path / "x")
    assert events[:2] == ["sync", "name"]

    def no_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", no_folders)  # as on some network file systems
    _write(tmp_path / "x")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path / "x", "lost")
    assert (tmp_path / "x").read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("has_module", [True, False])
def test_systems_without_locks(tmp_path, monkeypatch, has_module):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if has_module:
        monkeypatch.setattr(_files.fcntl, "flock", none)
    else:
        monkeypatch.setattr(_files, "fcntl", None)
    (tmp_path / "sub").mkdir()
    check_output_file(tmp_path / "sub" / "x")
    with locked(tmp_path / "sub" / "x"):
        _write(tmp_path / "sub" / "x")
    with folder_written_whole(tmp_path / "sub" / "f") as folder:
        _write(folder / "y")
    files = {path.name for path in (tmp_path / "sub").iterdir() if "lock" not in path.name}
    assert files == {"x", "f"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    with folder_written_whole(folder) as part:
        (part / "sub").mkdir()
        (part / "sub" / "x").write_text("x")
        assert not folder.exists()
    assert (folder / "sub" / "x").read_text() == "x"
    with pytest.raises(FileExistsError, match="exists and is not overwritten"):
        folder_written_whole(folder).__enter__()
    with pytest.raises(KeyboardInterrupt), folder_written_whole(tmp_path / "b") as part:  # noqa: PT012
        (part / "x").write_text("half")
        raise KeyboardInterrupt
    with (  # made by another in the meantime
        pytest.raises(FileExistsError, match="exists and is not overwritten"),
        folder_written_whole(tmp_path / "c") as part,
    ):
        (tmp_path / "c").mkdir()
    assert sorted(os.listdir(tmp_path)) == ["c", "new"]


def test_one_at_a_time_is_in_a_lock(tmp_path):
    """Processes and threads; nothing is lost, and no lock is left."""
    path = tmp_path / "count"
    path.write_text("0")
    program = """
    import threading
    def add():
        for _ in range(20):
            with locked(path):
                count = int(path.read_text())
                time.sleep(0.0005)
                path.write_text(str(count + 1))
    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    processes = [_run(program, path) for _ in range(3)]
    for process in processes:
        assert process.communicate() == (b"", b"")
    assert path.read_text() == "120"
    assert os.listdir(tmp_path) == ["count"]
