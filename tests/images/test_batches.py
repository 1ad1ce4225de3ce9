"""Every kind of X, and every way in which it can be wrong."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image, ImageOps

from skpadim.images._batches import Images, _read_in_turn, image_batches
from skpadim.images._files import list_images
from skpadim.images._read import fit_to_size, read_image, read_stack


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, size=(4, 20, 30, 3), dtype=np.uint8)


@pytest.fixture
def paths(pixels, tmp_path):
    names = [tmp_path / f"{index}.png" for index in range(len(pixels))]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(name)
    return names


def stack(X):
    return torch.stack([Images(X)[index] for index in range(len(Images(X)))])


def test_all_forms_of_the_same_images_are_equal(pixels, paths):
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    names = [str(path) for path in paths]
    forms = {
        "array": pixels,
        "tensor": expected,
        "list of paths": paths,
        "array of names": np.array(names),
        "column of names": np.array(names, dtype=object)[:, None],
        "Series": pd.Series(names, index=[7, 3, 5, 1]),
        "DataFrame": pd.DataFrame({"path": names}),
        "PIL images": [Image.fromarray(image) for image in pixels],
        "list of arrays": list(pixels),
        "list of tensors": list(expected),
        "mixed list": [names[0], pixels[1], Image.fromarray(pixels[2]), expected[3]],
        "tuple": tuple(paths),
        "folder": paths[0].parent,
        "folder's name": str(paths[0].parent),
    }
    for form, X in forms.items():
        assert torch.equal(stack(X), expected), form


def test_grey_images_are_repeated(pixels):
    grey = pixels[..., 0]
    expected = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    assert torch.equal(stack(grey), expected)
    assert torch.equal(stack(grey[..., None]), expected)
    assert torch.equal(stack(torch.from_numpy(grey)[:, None]), expected)
    assert torch.equal(stack([Image.fromarray(image) for image in grey]), expected)


def test_alpha_is_dropped(pixels, rng):
    alpha = rng.integers(0, 256, size=(*pixels.shape[:3], 1), dtype=np.uint8)
    with_alpha = np.concatenate([pixels, alpha], axis=3)
    expected = stack(pixels)
    assert torch.equal(stack(with_alpha), expected)
    assert torch.equal(stack([Image.fromarray(image) for image in with_alpha]), expected)


def test_16_bit_and_floats_are_scaled_to_one(rng, tmp_path):
    values = rng.integers(0, 65536, size=(8, 9), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(3, -1, -1)
    torch.testing.assert_close(read_image(tmp_path / "deep.png"), expected)
    torch.testing.assert_close(read_image(values), expected)
    torch.testing.assert_close(read_image(values / 65535), expected)
    Image.fromarray(values.astype(np.float32) / 65535).save(tmp_path / "float.tiff")
    torch.testing.assert_close(read_image(tmp_path / "float.tiff"), expected)


def test_exif_orientation_is_applied(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate a quarter to the right
    Image.fromarray(pixels[0]).save(tmp_path / "turned.png", exif=exif)
    expected = torch.from_numpy(np.rot90(pixels[0], -1).copy()).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "turned.png"), expected)


def test_cmyk_palette_and_still_gif_are_accepted(pixels, tmp_path):
    image = Image.fromarray(pixels[0])
    image.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    image.quantize(16).save(tmp_path / "still.gif")
    palette = image.quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    for name in ("print.jpg", "still.gif", "palette.png"):
        read = read_image(tmp_path / name)
        assert read.shape == (3, 20, 30)
        # The pictures are noise: equal means within what the format loses.
        assert abs(read.float().mean() - pixels[0].mean()) < 20, name
    expected = torch.from_numpy(np.array(image.quantize(16).convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "still.gif"), expected)


def test_sizes_may_differ_in_a_list(rng):
    sizes = [(20, 30), (64, 64), (100, 31)]
    images = [rng.integers(0, 256, size=(*size, 3), dtype=np.uint8) for size in sizes]
    (batch,) = image_batches(Images(images), 8, (32, 32), (32, 32))
    assert batch.shape == (3, 3, 32, 32)


def test_batches_do_not_change_the_images(pixels, paths):
    whole = torch.cat(list(image_batches(Images(pixels), 4, (16, 16), (12, 10))))
    assert whole.dtype == torch.uint8
    assert whole.shape == (4, 3, 12, 10)
    for batch_size in (1, 3, 100):
        batches = list(image_batches(Images(paths), batch_size, (16, 16), (12, 10)))
        assert torch.equal(torch.cat(batches), whole)


def as_stack(pixels, kind):
    stack = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return {
        "8-bit": stack,
        "grey": stack[:, :1],
        "alpha": torch.cat([stack, stack[:, :1]], dim=1),
        "floats": stack / 255,
        "16-bit": (stack.to(torch.int32) * 257).to(torch.uint16),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((kind, (20, 30)) for kind in ("8-bit", "grey", "alpha", "floats", "16-bit")),
        *((kind, (10, 15)) for kind in ("floats", "16-bit")),  # the others Pillow resizes
    ],
)
def test_a_stack_is_read_as_its_images_are(pixels, kind, size):
    stack = as_stack(pixels, kind)
    one_by_one = torch.stack([read_image(image, size, (8, 8)) for image in stack])
    torch.testing.assert_close(read_stack(stack, size, (8, 8)), one_by_one)


def test_a_bad_image_of_a_stack_is_named():
    stack = torch.zeros(5, 3, 4, 4)
    stack[3, 0, 0, 0] = 2
    batches = _read_in_turn(Images(stack), 2, (4, 4), None)
    assert len(next(batches)) == 2
    with pytest.raises(ValueError, match="Image 3 has floats from 0 to 2"):
        list(batches)


def test_arrays_are_one_stack_if_torch_can_share_them(pixels):
    shared = Images(pixels).as_stack()
    assert shared.shape == (4, 3, 20, 30)
    assert shared.data_ptr() == pixels.ctypes.data
    assert Images(pixels[:, ::-1]).as_stack() is None
    assert Images(list(pixels)).as_stack() is None
    read_only = pixels.copy()
    read_only.flags.writeable = False
    assert Images(read_only).as_stack() is None


def test_a_part_of_a_tensor_travels_alone():
    images = Images(torch.zeros(100, 3, 32, 32))
    alone = len(pickle.dumps(Images(torch.zeros(10, 3, 32, 32))))
    part = pickle.dumps(images.part(10, 20))
    assert len(part) < 1.1 * alone
    assert len(pickle.dumps(images.take(range(10)))) < 1.5 * alone
    assert torch.equal(pickle.loads(part).read(0), images.read(10))


def test_8_bit_and_float_images_mix(pixels):
    mixed = [pixels[0], pixels[1] / np.float32(255)]
    (batch,) = image_batches(Images(mixed), 2, (20, 30), None)
    torch.testing.assert_close(batch.permute(0, 2, 3, 1).numpy(), pixels[:2] / np.float32(255))


def test_resizing_is_antialiased_and_the_crop_is_the_centre():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    small = fit_to_size(read_image(stripes), (16, 16), None)
    assert small[:, 2:-2, 2:-2].float().std() < 3  # grey, not an alias of the stripes
    ramp = torch.arange(10, dtype=torch.uint8).expand(3, 10, 10)
    assert fit_to_size(ramp, (10, 10), (4, 4))[0, 0].tolist() == [3, 4, 5, 6]


def test_floats_and_8_bit_resize_alike(pixels):
    as_bytes = fit_to_size(read_image(pixels[0]), (9, 13), None) / 255
    as_floats = fit_to_size(read_image(pixels[0] / 255), (9, 13), None)
    torch.testing.assert_close(as_bytes, as_floats, atol=1 / 255, rtol=0)


def plainly_fitted(image, size, crop):
    """What reading gave before it skipped passes: orient, convert, resize, crop, one by one."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.array(image.convert("RGB") if image.mode != "RGBA" else image)[..., :3]
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    cropped = np.array(resized)[top : top + crop[0], left : left + crop[1]]
    return torch.from_numpy(cropped).permute(2, 0, 1)


def in_mode(mode, rng):
    colours = Image.fromarray(rng.integers(0, 256, size=(67, 101, 4), dtype=np.uint8))
    if mode == "transparent P":
        image = colours.convert("RGB").quantize(16)
        image.info["transparency"] = bytes(range(16))
        return image
    return colours if mode == "RGBA" else colours.convert("RGB").convert(mode)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "transparent P", "RGB", "RGBA", "CMYK", "YCbCr"]
)
def test_pixels_are_those_of_plain_resizing_in_every_mode_and_orientation(mode, orientation, rng):
    image = in_mode(mode, rng)
    image.getexif()[0x0112] = orientation
    before = image.tobytes()
    sizes = [((64, 64), (56, 56)), ((50, 30), (41, 30)), ((128, 256), (128, 256))]
    for size, crop in [*sizes, ((67, 101), (60, 90)), ((101, 67), (90, 60))]:
        expected = plainly_fitted(image, size, crop)
        assert torch.equal(read_image(image, size, crop), expected)
        assert torch.equal(fit_to_size(read_image(image), size, crop), expected)
    assert image.tobytes() == before


@pytest.mark.parametrize("extension", ["png", "jpg", "tiff", "webp"])
def test_pixels_of_files_are_those_of_plain_resizing(extension, rng, tmp_path):
    path = tmp_path / f"turned.{extension}"
    exif = Image.Exif()
    exif[0x0112] = 6
    in_mode("RGB", rng).save(path, exif=exif)
    with Image.open(path) as image:
        expected = plainly_fitted(image, (64, 64), (56, 50))
    assert torch.equal(read_image(path, (64, 64), (56, 50)), expected)


def test_pixels_of_deep_images_are_scaled_before_they_are_resized(rng):
    for values in (rng.integers(0, 65536, (30, 20), dtype=np.uint16), rng.random((30, 20))):
        pixels = values if values.dtype == np.uint16 else values.astype(np.float32)
        expected = fit_to_size(read_image(pixels), (16, 16), (12, 12))
        assert torch.equal(read_image(Image.fromarray(pixels), (16, 16), (12, 12)), expected)


def test_pixels_are_those_of_plain_resizing_from_any_size(rng):
    for width, height in rng.integers(1, 1500, size=(60, 2)):
        image = Image.fromarray(rng.integers(0, 256, size=(height, width), dtype=np.uint8))
        for size, crop in [((256, 256), (224, 224)), ((64, 512), (33, 479))]:
            assert torch.equal(read_image(image, size, crop), plainly_fitted(image, size, crop))


def test_folders_are_listed_in_order_with_subfolders(tmp_path, pixels):
    for name in ("b.png", "a/z.PNG", ".hidden.png", "a/.cache/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a/z.PNG", "b.png"]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "X has 0 images.*at least 1 is needed"),
        ([], ValueError, "X has 0 images"),
        (np.zeros((8, 8), np.uint8), ValueError, r"X has shape \(8, 8\); images must be"),
        (np.zeros((2, 8, 8, 5), np.uint8), ValueError, "with 1, 3 or 4 channels"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"must be \(n, height, width, 3\)"),
        (torch.zeros((2, 8, 8, 3)), ValueError, r"must be \(n, 3, height, width\)"),
        (torch.zeros((2, 8, 8)), ValueError, r"must be \(n, 3, height, width\)"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"one colour image: put it in a list, \[X\]"),
        ({"a.png": 1}, TypeError, "found dict"),
        ((path for path in ["a.png"]), TypeError, r"found generator. Make a list of it: list\(X\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), ValueError, "no pixels"),
        (
            np.zeros((2, 8, 8, 3), np.int64),
            ValueError,
            "X has pixels of dtype int64; they must",
        ),
        (np.zeros((2, 8, 8, 3), bool), ValueError, "dtype bool; they must be uint8"),
        (
            np.zeros((2, 8, 8), np.int64),
            ValueError,
            r"If they are 0 to 255, give X.astype",
        ),
        (np.zeros((2, 8, 8), complex), ValueError, "has pixels of dtype complex128"),
        (np.zeros((2, 8, 8, 3), object), ValueError, r"dtype object.*make numbers: X.astype"),
        (np.array([["a", "b"]]), ValueError, r"shape \(1, 2\).*in shape \(n,\) or \(n, 1\)"),
        (np.array("a"), ValueError, r"array of shape \(\)"),
        (np.ma.masked_all((2, 8, 8)), ValueError, r"X is a masked array.*X.filled\(value\)"),
        (scipy.sparse.eye(8).tocsr(), TypeError, r"found csr_matrix.*toarray\(\)"),
        ([scipy.sparse.eye(8).tocsr()], TypeError, r"X\[0\] is a csr_matrix.*toarray\(\)"),
        (
            torch.zeros(2, 3, 8, 8).to_sparse(),
            ValueError,
            r"X is a tensor of layout .*to_dense",
        ),
        (torch.zeros(2, 3, 8, 8, device="meta"), ValueError, "X is a tensor on the meta device"),
        ([[1, 2], [3, 4]], TypeError, r"X\[0\] is a list.*numpy.asarray\(X\)"),
        ([np.float64(3)], TypeError, r"X\[0\] is a float64"),
        (b"folder", TypeError, r"found bytes.*os.fsdecode\(path\)"),
        ([b"a.png"], TypeError, r"X\[0\] is a bytes.*os.fsdecode\(path\)"),
        ("", ValueError, "X is an empty string"),
        ("a/*.png", FileNotFoundError, r"Patterns are not expanded: give sorted\(glob.glob"),
        (3, TypeError, "X must be an array.*found int"),
        (None, TypeError, "X must be an array.*found NoneType"),
        ([np.zeros((8, 8), np.uint8), 3], TypeError, r"X\[1\] is a int \(3\)"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ValueError, "DataFrame of 2 columns"),
        (Image.new("RGB", (8, 8)), ValueError, r"put it in a list: \[X\]"),
    ],
)
def test_bad_x_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        Images(X)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 8), np.nan), "Image 1 has NaN or infinite pixels"),
        (np.full((8, 8, 3), np.inf), "Image 1 has NaN or infinite pixels"),
        (np.full((8, 8, 3), 200.0), "Image 1 has floats from 200 to 200.*divide 8-bit values"),
        (np.full((8, 8, 3), -0.5), r"Image 1 has floats from -0.5.*\[0, 1\]"),
        (np.zeros((8, 8, 2), np.uint8), r"Image 1 has shape \(8, 8, 2\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"Image 1 has shape \(8, 8, 3\); a tensor"),
        (np.zeros((8, 8), np.int32), "Image 1 has pixels of dtype int32"),
        (np.zeros((0, 8), np.uint8), "Image 1 has no pixels"),
        (np.full((8, 8), 1 + 1e-5), "Image 1 has floats from 1.00001 to 1.00001.*clip them"),
        (np.full((8, 8), 1.5), r"Image 1 has floats from 1.5 to 1.5; [^5]*$"),
        (np.full((8, 8), -0.5), "before they are standardised"),
        (np.zeros((8, 8), bool), "dtype bool.*Is it a mask"),
        (np.array(3.0), r"Image 1 has shape \(\)"),
        (np.ma.masked_all((8, 8)), "Image 1 is a masked array"),
        (torch.zeros(3, 8, 8).to_sparse(), "Image 1 is a tensor of layout torch.sparse_coo"),
        (torch.zeros(3, 8, 8, device="meta"), "Image 1 is a tensor on the meta device"),
    ],
)
def test_a_bad_image_is_named_by_its_index(image, message):
    with pytest.raises(ValueError, match=message):
        Images([np.zeros((8, 8), np.uint8), image])[1]


def write_truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def write_bad_header(path):
    path.write_bytes(b"P5\nR55 1\n255\n0")


def write_animated(path):
    frames = [Image.new("L", (8, 8), value) for value in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.png", lambda path: None, "does not exist"),
        ("empty.png", lambda path: path.touch(), r"is empty \(0 bytes\)"),
        ("text.png", lambda path: path.write_text("hello"), "cannot be read as an image"),
        ("short.png", write_truncated, "cannot be read as an image.*truncated"),
        ("short.jpg", write_truncated, "cannot be read as an image.*truncated"),
        ("header.ppm", write_bad_header, "cannot be read as an image"),
        ("film.gif", write_animated, "has 3 frames; save the frame"),
        ("folder.png", lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_a_bad_file_is_named_by_path_and_index(name, write, message, tmp_path, paths):
    bad = tmp_path / name
    write(bad)
    images = Images([paths[0], bad])
    with pytest.raises(ValueError, match=f"Image 1 .*{name}.*{message}") as caught:
        list(image_batches(images, 1, (8, 8), None))
    assert os.fspath(bad) in str(caught.value)


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no images: looked.*for files ending in"):
        Images(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        Images(tmp_path / "nowhere")
    (tmp_path / "one.png").touch()
    with pytest.raises(ValueError, match="path of one file; put it in a list"):
        Images(str(tmp_path / "one.png"))
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        list_images(tmp_path / "one.png")


def test_flipped_arrays_are_accepted(pixels):
    flipped = pixels[:, :, ::-1, ::-1]
    assert torch.equal(stack(flipped), stack(flipped.copy()))
    assert torch.equal(stack(list(flipped)), stack(flipped.copy()))


class Wrapped:
    """As xarray's and other libraries' arrays: NumPy can make an array of it."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_of_any_make_mean_what_their_values_mean(dtype, rng):
    values = rng.random((3, 6, 7, 3))
    values = values.astype(dtype) if dtype().dtype.kind == "f" else (values * 200).astype(dtype)
    expected = stack(values)
    makes = {
        "big-endian": values.astype(values.dtype.newbyteorder(">")),
        "without masked values": np.ma.array(values),
        "wrapped": Wrapped(values),
    }
    if dtype == np.float64:
        makes["long"] = values.astype(np.longdouble)
    for make, X in makes.items():
        assert torch.equal(stack(X), expected), make
        one_by_one = [Wrapped(each) for each in values] if make == "wrapped" else list(X)
        assert torch.equal(stack(one_by_one), expected), make
        batches = image_batches(Images(X), 2, (5, 5), None)
        whole = torch.cat(list(image_batches(Images(values), 2, (5, 5), None)))
        assert torch.equal(torch.cat(list(batches)), whole), make


def test_floats_that_rounding_brought_out_of_range_are_clipped():
    for dtype in (np.float16, np.float32, np.float64):
        above = np.nextafter(dtype(1), dtype(2))
        pixels = np.array([[above, dtype(-1e-7)], [dtype(0.5), dtype(0)]])
        expected = torch.tensor([[1, 0], [0.5, 0]]).expand(3, -1, -1)
        assert torch.equal(read_image(pixels), expected)
        assert torch.equal(stack(np.stack([pixels] * 2))[1], expected)
    bfloat16 = torch.tensor([[1.0078125, 0.5]], dtype=torch.bfloat16)
    assert read_image(bfloat16).max() == 1


def test_tensors_that_need_gradients_are_read_without():
    image = torch.rand(3, 8, 8, requires_grad=True)
    assert not read_image(image).requires_grad


def test_frames_of_pil_images_are_refused(tmp_path):
    write_animated(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film, pytest.raises(ValueError, match="3 frames"):
        Images([film])[0]


def test_read_only_arrays_are_accepted_without_a_warning(pixels):
    pixels.flags.writeable = False
    assert stack(pixels).shape == (4, 3, 20, 30)
