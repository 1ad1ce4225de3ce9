"""An image file means its pixels, in every format, depth and orientation; or it is refused."""

import io
import os
import pickle
import socket
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from skpadim.images._batches import Images
from skpadim.images._files import (
    IMAGE_SUFFIXES,
    ImageFileError,
    files_left_out,
    list_images,
    open_image,
    upright,
    upright_size,
)
from skpadim.images._items import items_of
from skpadim.images._read import read_image

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}


def write_png(path, pixels, orientation=1, interlaced=False):
    """PNG of uint8 or uint16, grey or colours, with or without alpha; rows in all five filters."""
    n_channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    bits = 8 * pixels.itemsize
    steps = [(0, 0, 1, 1)]
    if interlaced:
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
        steps.append((1, 0, 2, 1))
    content = b"".join(filtered(pixels[top::down, left::right]) for top, left, down, right in steps)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[n_channels]
    height, width = pixels.shape[:2]
    exif = Image.Exif()
    exif[0x0112] = orientation
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, bits, kind, 0, 0, interlaced)),
        (b"eXIf", exif.tobytes()[6:]),
        (b"IDAT", zlib.compress(content)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def filtered(pixels):
    """Rows of a PNG, each with the next of its five filters."""
    if 0 in pixels.shape:
        return b""
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1)
    rows = rows.view(np.uint8).reshape(len(pixels), -1).astype(int)
    n_bytes = rows.shape[1] // pixels.shape[1]
    content = b""
    for index, row in enumerate(rows):
        above = rows[index - 1] if index else np.zeros_like(row)
        left, corner = (
            np.concatenate([np.zeros(n_bytes, int), r[:-n_bytes]]) for r in (row, above)
        )
        guess = left + above - corner
        near = np.stack([abs(guess - each) for each in (left, above, corner)])
        paeth = np.choose(near.argmin(axis=0), [left, above, corner])
        kind = index % 5
        predicted = [0 * row, left, above, (left + above) // 2, paeth][kind]
        content += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
    return content


def write_tiff(
    path, pixels, orientation=1, order="<", deflate=False, predictor=False, tile=None, apart=False,
    photometric=None, extra=None, bits=None,
):  # fmt: skip
    """TIFF in strips of 5 rows, or tiles."""
    height, width = pixels.shape[:2]
    samples = pixels.reshape(height, width, -1)
    n_samples = samples.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tall, wide = tile or (5, width)
    planes = [samples[..., [k]] for k in range(n_samples)] if apart else [samples]
    blocks = []
    for plane in planes:
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                block = plane[top : top + tall, left : left + wide]
                if tile:
                    missing = [(0, tall - block.shape[0]), (0, wide - block.shape[1]), (0, 0)]
                    block = np.pad(block, missing)
                if predictor:
                    block = np.diff(block, axis=1, prepend=block[:, :1] * 0)
                data = block.astype(block.dtype.newbyteorder(order)).tobytes()
                blocks.append(zlib.compress(data) if deflate else data)
    offsets = np.cumsum([8, *map(len, blocks)])
    if photometric is None:
        photometric = 2 if n_samples >= 3 else 1
    tags = {
        256: [width], 257: [height], 258: [bits or 8 * pixels.itemsize] * n_samples,
        259: [8 if deflate else 1], 262: [photometric], 274: [orientation], 277: [n_samples],
        284: [2 if apart else 1], 317: [2 if predictor else 1], 339: [kind] * n_samples,
    }  # fmt: skip
    if n_samples in (2, 4) and photometric < 5:
        tags[338] = [2 if extra is None else extra]
    where, sizes = (324, 325) if tile else (273, 279)
    tags |= {322: [wide], 323: [tall]} if tile else {278: [tall]}
    tags |= {where: offsets[:-1].tolist(), sizes: [len(block) for block in blocks]}
    entries, apart_values = b"", b""
    start = int(offsets[-1]) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        is_long = tag in (where, sizes)
        data = struct.pack(f"{order}{len(values)}{'I' if is_long else 'H'}", *values)
        if len(data) > 4:
            place = struct.pack(f"{order}I", start + len(apart_values))
            apart_values += data
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 4 if is_long else 3, len(values)) + place
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", int(offsets[-1]))
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    path.write_bytes(header + b"".join(blocks) + directory + apart_values)


def write_by_pillow(path, pixels, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)


WAYS = {
    "png": (".png", write_png, {}),
    "interlaced png": (".png", write_png, {"interlaced": True}),
    "raw tiff": (".tif", write_tiff, {}),
    "raw big-endian tiff": (".tif", write_tiff, {"order": ">"}),
    "raw tiff in tiles": (".tiff", write_tiff, {"tile": (16, 32)}),
    "raw tiff in planes": (".tif", write_tiff, {"apart": True}),
    "raw big-endian tiff in planes": (".tif", write_tiff, {"apart": True, "order": ">"}),
    "tiff": (".tif", write_tiff, {"deflate": True}),
    "big-endian tiff": (".tif", write_tiff, {"deflate": True, "order": ">"}),
    "tiff with predictor": (".tif", write_tiff, {"deflate": True, "predictor": True}),
    "tiff in tiles": (".tif", write_tiff, {"deflate": True, "tile": (16, 16)}),
}


def noise(dtype, n_channels, rng, shape=(19, 37)):
    shape = shape if n_channels == 1 else (*shape, n_channels)
    if dtype == np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def array_form(pixels):
    """Pixels as they are given in an array: grey without its alpha."""
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 2 else pixels


FILES = [
    (way, dtype, n_channels)
    for way in WAYS
    for dtype in (np.uint8, np.uint16)
    for n_channels in (1, 2, 3, 4)
    # Of grey with alpha, Pillow knows no TIFF of 16 bits, nor one in planes.
    if not (n_channels == 2 and "tiff" in way and (dtype == np.uint16 or "planes" in way))
]


@pytest.mark.parametrize(("way", "dtype", "n_channels"), FILES)
def test_a_file_means_what_its_array_means_in_every_orientation(
    way, dtype, n_channels, rng, tmp_path
):
    suffix, write, options = WAYS[way]
    for orientation, turn in UPRIGHT.items():
        stored = noise(dtype, n_channels, rng)
        path = tmp_path / f"{orientation}{suffix}"
        write(path, stored, orientation, **options)
        expected = read_image(np.ascontiguousarray(array_form(turn(stored))))
        for given in (path, io.BytesIO(path.read_bytes())):
            with Image.open(given) as image:
                images = Images([path, image])
                for each in (images, pickle.loads(pickle.dumps(images))):
                    for read in each:
                        assert read.dtype == expected.dtype
                        assert torch.equal(read, expected), orientation
        with open_image(path) as image:
            assert upright_size(image) == expected.shape[1:]
            assert upright(image).size == expected.shape[:0:-1]
            assert upright_size(image) == expected.shape[1:]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {"quality": 100, "subsampling": 0}), ("a.webp", {"lossless": True})],
)
def test_compressed_files_are_turned_upright(name, options, rng, tmp_path):
    stored = np.kron(noise(np.uint8, 3, rng, (3, 5)), np.ones((8, 8, 1), np.uint8))
    for orientation, turn in UPRIGHT.items():
        write_by_pillow(tmp_path / name, stored, orientation, **options)
        expected = read_image(np.ascontiguousarray(turn(stored)))
        read = read_image(tmp_path / name)
        assert read.shape == expected.shape
        assert (read.float() - expected.float()).abs().max() < 8, orientation
        with open_image(tmp_path / name) as image:
            assert upright_size(image) == expected.shape[1:]


@pytest.mark.parametrize("options", [{}, {"deflate": True}, {"tile": (16, 16)}, {"apart": True}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_float_files_are_read_as_they_are(order, options, rng, tmp_path):
    pixels = noise(np.float32, 1, rng)
    write_tiff(tmp_path / "a.tif", pixels, 6, order=order, **options)
    expected = torch.from_numpy(np.rot90(pixels, -1).copy()).expand(3, -1, -1)
    assert torch.equal(read_image(tmp_path / "a.tif"), expected)


def test_12_bit_files_are_scaled_by_their_range(rng, tmp_path):
    values = noise(np.uint16, 1, rng, (10, 20)) >> 4
    pairs = values.reshape(-1, 2)
    first, second = pairs.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    packed = packed.astype(np.uint8).reshape(10, 30)
    write_tiff(tmp_path / "a.tif", packed, bits=12)
    content = (tmp_path / "a.tif").read_bytes()
    width = struct.pack("<HHIH", 256, 3, 1, 30)
    assert width in content
    (tmp_path / "a.tif").write_bytes(content.replace(width, struct.pack("<HHIH", 256, 3, 1, 20)))
    expected = torch.from_numpy(values.astype(np.float32) / 4095).expand(3, -1, -1)
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("maxval", [100, 255, 1023, 4095, 65535])
def test_netpbm_files_are_scaled_by_their_largest_value(maxval, rng, tmp_path):
    for kind, shape in ((b"P5", (6, 7)), (b"P6", (6, 7, 3))):
        values = rng.integers(0, maxval, shape, endpoint=True)
        data = values.astype(">u2" if maxval > 255 else "u1").tobytes()
        (tmp_path / "a.pnm").write_bytes(b"%s\n# seen\n7 6\n%d\n" % (kind, maxval) + data)
        read = read_image(tmp_path / "a.pnm")
        if read.dtype == torch.uint8:
            read = read / 255
        expected = values.reshape(6, 7, -1)[..., [0, -2, -1] if len(shape) == 3 else [0]] / maxval
        tolerance = 1e-5 if maxval > 255 else 0.5 / 255
        expected = torch.from_numpy(expected).permute(2, 0, 1).expand(3, -1, -1).float()
        torch.testing.assert_close(read, expected, rtol=0, atol=tolerance * 1.01)


def write_plain_deep(path):
    path.write_text("P3 1 1 1023\n1 2 3\n")


REFUSED = [
    ("float64", lambda p: write_tiff(p, np.zeros((4, 4))), "1 float sample of 64 bits.*float32"),
    ("colour floats", lambda p: write_tiff(p, np.zeros((4, 4, 3), np.float32)), "3 float samples"),
    ("int16", lambda p: write_tiff(p, np.zeros((4, 4), np.int16)), "has signed 16-bit integers"),
    ("uint32", lambda p: write_tiff(p, np.zeros((4, 4), np.uint32)), "32-bit integers"),
    ("white is 0", lambda p: write_tiff(p, np.zeros((4, 4), np.uint16), photometric=0), "white is"),
    ("grey + alpha", lambda p: write_tiff(p, np.zeros((4, 4, 2), np.uint16)), "2 unsigned samples"),
    (
        "CMYK",
        lambda p: write_tiff(p, np.zeros((4, 4, 4), np.uint16), photometric=5),
        r"more than 8 bits, of which 8 .* \(TIFF, CMYK\): give it as an array",
    ),
    (
        "colours times alpha",
        lambda p: write_tiff(p, np.zeros((4, 4, 4), np.uint16), extra=1),
        "more than 8 bits, of which 8 at most",
    ),
    (
        "planes that libtiff reads",
        lambda p: write_tiff(p, np.zeros((4, 4, 3), np.uint16), apart=True, deflate=True),
        "more than 8 bits, of which 8 at most",
    ),
    ("plain text", write_plain_deep, r"more than 8 bits, .* \(PPM, RGB\)"),
    ("PostScript", lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
     "cannot be read as an image.*in none of the formats"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "message"), [case[1:] for case in REFUSED],
                         ids=[case[0] for case in REFUSED])  # fmt: skip
def test_what_cannot_be_read_exactly_is_refused_in_words(write, message, tmp_path):
    path = tmp_path / "a.tif"
    write(path)
    with pytest.raises(ValueError, match=f"Image 0 .*a.tif.* {message}") as caught:
        Images([path]).read(0)
    assert "BufferedReader" not in str(caught.value)


def test_a_pil_image_that_was_cut_to_8_bits_is_refused(rng, tmp_path):
    path = tmp_path / "deep.png"
    write_png(path, noise(np.uint16, 3, rng))
    with Image.open(path) as image:
        image.load()
    with pytest.raises(ValueError, match=r"X\[1\] is a PIL image of which .* 8 of 16 .*deep.png"):
        Images([path, image])


def test_a_changed_pil_image_is_not_taken_for_its_file(rng, tmp_path):
    path = tmp_path / "raw.tif"
    write_tiff(path, noise(np.uint8, 1, rng, (16, 16)))
    with Image.open(path) as image:
        image.paste(0, (0, 0, 16, 16))
    assert read_image(Images([image]).items[0]).max() == 0


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "LAB",
        "I",
        "I;16",
        "I;16B",
        "F",
    ],
)
def test_every_mode_of_pil_images_is_read_or_refused(mode, rng):
    grey = Image.new("L", (6, 4), 128)
    if mode[0] == "I":
        image = Image.fromarray(np.full((4, 6), 32896, np.int32)).convert(mode)
    elif mode == "F":
        image = Image.fromarray(np.full((4, 6), 0.5, np.float32))
    elif mode in ("La", "PA"):
        image = Image.merge("LA", [grey, Image.new("L", (6, 4), 90)]).convert(mode)
    elif mode == "RGBa":
        image = Image.new("RGBA", (6, 4), (128, 128, 128, 90)).convert(mode)
    else:
        image = grey.convert("P" if mode == "P" else "RGB").convert(mode)
    read = read_image(image)
    levels = read / 255 if read.dtype == torch.uint8 else read
    assert abs(levels.mean() - 0.5) < 0.15 if mode == "1" else (levels - 0.5).abs().max() < 0.01


def test_pil_integers_out_of_range_are_refused():
    image = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    with pytest.raises(ValueError, match="Image 0 has integers from 0 to 70000.*0 to 65535"):
        Images([image]).read(0)


SAVED_AS = {".dib": "DIB", ".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".tga": "TGA"}


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_files_of_every_suffix_are_read(suffix, tmp_path):
    pixels = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((16, 16), np.uint8))
    image = Image.fromarray(pixels).convert("1" if suffix == ".pbm" else "RGB")
    if suffix == ".pgm":
        image = image.convert("L")
    image.save(tmp_path / f"a{suffix.upper()}", SAVED_AS.get(suffix))
    (path,) = list_images(tmp_path)
    assert (read_image(path)[0].float() - torch.from_numpy(pixels)).abs().max() < 40


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow was built without JPEG 2000")
def test_jpeg_2000_is_read_if_pillow_keeps_its_bits(rng, tmp_path):
    grey = noise(np.uint16, 1, rng)
    Image.fromarray(grey).save(tmp_path / "grey.jp2")
    assert torch.equal(read_image(tmp_path / "grey.jp2"), read_image(grey))
    Image.fromarray(noise(np.uint8, 3, rng)).save(tmp_path / "deep.jp2")
    content = (tmp_path / "deep.jp2").read_bytes()
    depth = content.index(b"\xff\x4f\xff\x51") + 42
    (tmp_path / "deep.jp2").write_bytes(content[:depth] + b"\x0b" + content[depth + 1 :])
    with pytest.raises(ValueError, match="more than 8 bits.*JPEG2000, RGB"):
        read_image(tmp_path / "deep.jp2")


def test_garbage_passes_for_no_format(tmp_path):
    for suffix in IMAGE_SUFFIXES:
        for content in (b"\0" * 200, bytes(range(256)) * 4, b"\xff" * 20, b"<html>" * 9):
            (tmp_path / f"a{suffix}").write_bytes(content)
            with pytest.raises(ValueError, match="Image 0 .* cannot be read"):
                Images([tmp_path / f"a{suffix}"]).read(0)


def make_odd_files(folder):
    os.mkfifo(folder / "fifo.png")
    os.symlink(folder / "loop.png", folder / "loop.png")
    os.symlink("/dev/zero", folder / "device.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # names of sockets must be short
        server.bind("socket.png")
        os.chdir(here)


@pytest.mark.skipif(os.name == "nt", reason="of files that Windows does not have")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, rng):
    make_odd_files(tmp_path)
    write_png(tmp_path / "sound.png", noise(np.uint8, 1, rng))
    for name, message in {
        "fifo.png": "is a pipe, socket or device",
        "socket.png": "is a pipe, socket or device",
        "device.png": "is a pipe, socket or device",
        "loop.png": "leads back to itself",
        "sound.png/a.png": "cannot be opened: Not a directory",
        "nul\0.png": "has a name that no file can have",
        "*.png": "does not exist.*Patterns are not expanded",
        "": "does not exist",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            Images([str(tmp_path / name) if name else ""]).read(0)
        assert "0 bytes" not in str(caught.value)
    # Of a folder, each is told when it is its turn, and none is lost in silence.
    odd = ["device.png", "fifo.png", "loop.png", "socket.png", "sound.png"]
    assert [path.name for path in list_images(tmp_path)] == odd


def test_files_left_out_of_a_folder_are_told(tmp_path, rng):
    for name in ("b.psd", "a/notes.txt", ".hidden.txt", "a/.git/config", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a", target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in files_left_out(tmp_path)]
    assert found == ["a/notes.txt", "b.psd", "linked"]


def test_the_limit_of_pixels_reaches_workers(monkeypatch, tmp_path, rng):
    write_png(tmp_path / "a.png", noise(np.uint8, 1, rng))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="Image 0 .* more pixels than .*MAX_IMAGE_PIXELS = N"):
        Images([tmp_path / "a.png"]).read(0)
    sent = pickle.dumps(Images([tmp_path / "a.png"]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**9)
    pickle.loads(sent)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_errors_inside_of_an_opened_image_are_told_in_words(tmp_path, rng):
    write_png(tmp_path / "a.png", noise(np.uint8, 1, rng))
    with (
        pytest.raises(ImageFileError, match=r"cannot be read as an image \('odd'\)"),
        open_image(tmp_path / "a.png"),
    ):
        raise KeyError("odd")


def test_paths_are_found_in_every_form_of_x(tmp_path, rng):
    import pandas as pd

    names = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for name in names:
        write_png(type(tmp_path)(name), noise(np.uint8, 1, rng))
    forms = [
        tmp_path, str(tmp_path), names, tuple(names), np.array(names), np.array(names)[:, None],
        np.array(names, dtype=object), pd.Series(names), pd.DataFrame({"path": names}),
        pd.Index(names), sorted(os.scandir(tmp_path), key=os.fspath),
    ]  # fmt: skip
    for X in forms:
        assert list(map(os.fspath, items_of(X))) == names, X
    assert items_of(np.zeros((3, 5, 5))).shape == (3, 5, 5)
    assert items_of(iter(names)) == []
    assert items_of("nowhere") == []
