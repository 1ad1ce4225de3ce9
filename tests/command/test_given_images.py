"""Images of a command line: folders, files and lists, each image once."""

import io
import os
import sys

import pytest

from skpadim.command._given_images import collect_images


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two folders with an image of the same name, and an image beside them."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.png", "b/x.png", "b/deep/y.JPG", "z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(given):
    return [os.fspath(path) for path in given.paths]


def relative_names(given):
    return [os.fspath(given.relative(path)) for path in given.paths]


def test_folders_and_files_in_the_order_given(tree):
    given = collect_images(["z.png", "b", "a"])
    assert names(given) == ["z.png", "b/deep/y.JPG", "b/x.png", "a/x.png"]
    assert relative_names(given) == names(given)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["b"], ["deep/y.JPG", "x.png"]),
        (["a/x.png"], ["x.png"]),
        (["a/x.png", "b/x.png"], ["a/x.png", "b/x.png"]),
        (["b/deep", "a/x.png"], ["b/deep/y.JPG", "a/x.png"]),
    ],
)
def test_names_from_the_root_differ(tree, images, expected):
    assert relative_names(collect_images(images)) == expected
    absolute = collect_images([str(tree / image) for image in images])
    assert relative_names(absolute) == expected


@pytest.mark.parametrize("again", ["b/x.png", "./b/x.png", "a/../b/x.png", "{tree}/b/x.png", "b"])
def test_an_image_named_twice_is_taken_once(tree, again):
    with pytest.warns(UserWarning, match="named more than once are taken once"):
        given = collect_images(["b/x.png", again.format(tree=tree)])
    assert names(given)[0] == "b/x.png"
    assert len(given.paths) == (2 if again == "b" else 1)


@pytest.mark.parametrize("by", ["file", "-", "--files-from -"])
def test_a_list_of_names(tree, monkeypatch, by):
    odd = os.fsencode(tree) + b"/caf\xe9.png"
    content = b"a\r\nz.png\n\ngone.png\n" + odd
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (tree / "list.txt").write_bytes(b"\xef\xbb\xbf" + content)
    given = {
        "file": lambda: collect_images([], "list.txt"),
        "-": lambda: collect_images(["-"]),
        "--files-from -": lambda: collect_images([], "-"),
    }[by]()
    assert names(given) == ["a/x.png", "z.png", "gone.png", os.fsdecode(odd)]


@pytest.mark.parametrize(
    ("images", "list_name", "kind", "message"),
    [
        (["a", "nowhere"], None, FileNotFoundError, "^nowhere does not exist"),
        (["empty"], None, ValueError, "empty has no images"),
        ([], "nowhere.txt", FileNotFoundError, "--files-from nowhere.txt is not a file"),
        ([], "a", FileNotFoundError, "--files-from a is not a file"),
        ([], "blank.txt", ValueError, "The list of images is empty"),
    ],
)
def test_mistakes_are_told(tree, images, list_name, kind, message):
    (tree / "empty").mkdir()
    (tree / "blank.txt").write_text("\n\n")
    with pytest.raises(kind, match=message):
        collect_images(images, list_name)


def test_names_that_no_file_can_have_are_left_to_who_reads_them(tree):
    odd = ["x" * 300 + ".png", "z.png/y.png", "loop.png", "nul\0.png"]
    (tree / "loop.png").symlink_to("loop.png")
    (tree / "list.txt").write_text("\n".join(odd))
    assert names(collect_images([], "list.txt")) == odd
    (tree / "a/gone.png").symlink_to("nothing")
    assert names(collect_images(["a"])) == ["a/gone.png", "a/x.png"]
    assert names(collect_images([odd[0], odd[2]])) == [odd[0], odd[2]]


def test_files_left_out_for_their_suffix_are_told(tree):
    for name in ("Thumbs.db", "desktop.ini", ".hidden.txt", ".dir/x.txt"):  # no fuss about these
        (tree / "b" / name).parent.mkdir(exist_ok=True)
        (tree / "b" / name).touch()
    collect_images(["b", "z.png"])
    (tree / "b/deep/notes.txt").touch()
    with pytest.warns(UserWarning, match=r"^1 file is left out, .*: b/deep/notes\.txt$"):
        collect_images(["b"])
    (tree / "b/to_a").symlink_to(tree / "a", target_is_directory=True)
    with pytest.warns(UserWarning, match=r"b/to_a; links to folders are not followed$"):
        assert names(collect_images(["b"])) == ["b/deep/y.JPG", "b/x.png"]
    (tree / "b/to_a").unlink()
    for index in range(4):
        (tree / f"b/{index}.dng").touch()
    with pytest.warns(
        UserWarning, match=r"^5 files are left out, .*: b/0\.dng, b/1\.dng, b/2\.dng"
    ):
        assert names(collect_images(["b"])) == ["b/deep/y.JPG", "b/x.png"]
    with (
        pytest.warns(UserWarning, match="more than once"),
        pytest.warns(UserWarning, match="^5 files are left out"),  # each once
    ):
        collect_images(["b", "b/deep/../deep", "a"])
