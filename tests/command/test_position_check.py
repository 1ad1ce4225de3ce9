"""Where parts of good images lie, as `skpadim doctor` tells it."""

import joblib
import numpy as np
import pytest
from PIL import Image, ImageDraw

from skpadim.__main__ import main
from skpadim.command._position_check import look_at_positions


@pytest.fixture
def draw(tmp_path, rng):
    """Write images of an arrow that lies up to `shift` pixels off, and is turned."""

    def make(shift=0, angle=0.0, size=(256, 256), n=12):
        paths = [tmp_path / f"{index:02}.png" for index in range(n)]
        for path in paths:
            image = Image.new("L", size[::-1], 60)
            middle = size[1] // 2, size[0] // 2
            points = [(-60, -12), (10, -12), (10, -40), (64, 0), (10, 40), (10, 12), (-60, 12)]
            places = [(x + middle[0], y + middle[1]) for x, y in points]
            ImageDraw.Draw(image).polygon(places, fill=200)
            turned = image.rotate(rng.uniform(-angle, angle), fillcolor=60, resample=2)
            pixels = np.roll(turned, rng.integers(-shift, shift + 1, 2), axis=(0, 1)) + 0.0
            Image.fromarray((pixels + rng.normal(0, 3, size)).astype(np.uint8)).save(path)
        return paths

    return make


def test_parts_at_one_place_are_a_fact(draw, tmp_path):
    facts, findings = look_at_positions(draw(), (256, 256), tmp_path)
    assert facts == {"motion": "parts lie up to 0 pixels apart, of images of 256 x 256"}
    assert not findings


def test_parts_that_move_a_little_are_a_hint(draw, tmp_path):
    facts, findings = look_at_positions(draw(shift=3), (256, 256), tmp_path)
    assert "of 256 x 256: with --align translation more defects may be found" in facts["motion"]
    assert not findings


@pytest.mark.parametrize(
    ("motions", "size", "option"),
    [
        ({"shift": 12}, (256, 256), "translation"),
        ({"angle": 8.0}, (256, 256), "rigid"),
        ({"angle": 8.0}, (200, 300), "rigid --keep-aspect-ratio"),
    ],
)
def test_parts_that_move_are_a_finding(motions, size, option, draw, tmp_path):
    facts, findings = look_at_positions(draw(**motions, size=size), size, tmp_path)
    assert not facts
    ((what, remedy),) = findings.items()
    assert what.startswith("parts lie up to ")
    assert ("are turned by up to 1" in what) == ("angle" in motions)
    assert remedy == f"skpadim fit {tmp_path} --align {option} -o MODEL"


def test_doctor_tells_it_unless_the_model_aligns(draw, tmp_path, model, make_detector, capsys):
    paths = draw(shift=12, n=24)
    assert main(["doctor", str(tmp_path)]) == 4
    assert f"-> skpadim fit {tmp_path} --align translation -o MODEL" in capsys.readouterr().out
    aligning = make_detector(align="translation").fit(paths)
    joblib.dump(aligning, model)
    main(["doctor", str(tmp_path), str(model)])
    assert "apart" not in capsys.readouterr().out


def test_a_texture_has_no_positions(tmp_path, rng):
    for index in range(6):
        pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    facts, findings = look_at_positions(sorted(tmp_path.iterdir()), (64, 64), tmp_path)
    assert "no common picture" in facts["motion"]
    assert "A texture needs no alignment" in facts["motion"]
    assert not findings
