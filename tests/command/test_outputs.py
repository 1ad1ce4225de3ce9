"""What a command line reads is not what it writes over."""

import pytest
from PIL import Image

from skpadim.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ("fit IMAGE -o IMAGE", "-o IMAGE is a file that is read"),
        ("fit FOLDER -o IMAGE", "-o IMAGE is an image"),
        ("fit FOLDER --groups LIST -o LIST", "-o LIST is a file that is read"),
        ("score MODEL FOLDER -o MODEL", "-o MODEL is a file that is read"),
        ("score MODEL FOLDER -o LINK", "-o LINK is a file that is read"),
        ("score MODEL --files-from LIST -o LIST", "-o LIST is a file that is read"),
        ("score MODEL FOLDER --contact-sheet MODEL", "--contact-sheet MODEL is a file that is"),
        ("score MODEL --files-from LIST --contact-sheet IMAGE", "IMAGE is one of the images"),
        ("score MODEL FOLDER --regions MODEL", "--regions MODEL is a file that is read"),
        ("score MODEL FOLDER --maps MODEL", "--maps MODEL is a file that is read"),
        ("score MODEL FOLDER --overlays MODEL", "--overlays MODEL is a file that is read"),
        ("report MODEL FOLDER -o MODEL", "-o MODEL is a file that is read"),
        ("evaluate MODEL FOLDER -o MODEL", "-o MODEL is a file that is read"),
        ("evaluate MODEL FOLDER -o IMAGE", "-o IMAGE is an image"),
        ("calibrate MODEL --on FOLDER -o IMAGE", "-o IMAGE is an image"),
        ("doctor MODEL --write-groups MODEL", "--write-groups MODEL is a file that is read"),
        ("benchmark mvtec_ad --root FOLDER -o IMAGE", "-o IMAGE is an image"),
    ],
)
def test_an_output_that_is_an_input_is_refused(arguments, option, model, tmp_path, capsys):
    names = {"MODEL": model, "FOLDER": tmp_path / "parts", "IMAGE": tmp_path / "parts/a.png"}
    names |= {"LIST": tmp_path / "list.txt", "LINK": tmp_path / "link"}
    names["FOLDER"].mkdir()
    Image.new("RGB", (64, 64)).save(names["IMAGE"])
    names["LIST"].write_text(f"{names['IMAGE']}\n")
    names["LINK"].symlink_to(model)
    before = {path: path.read_bytes() for path in (model, names["IMAGE"], names["LIST"])}
    assert main([str(names.get(word, word)) for word in arguments.split()]) == 1
    for name, path in names.items():
        option = option.replace(name, str(path))
    told = capsys.readouterr().err
    assert option in told
    assert "give another name" in told
    assert {path: path.read_bytes() for path in before} == before


def test_a_model_is_calibrated_in_its_place_and_a_file_of_scores_replaced(model, folder, tmp_path):
    assert main(["calibrate", str(model), "--threshold", "9", "-o", str(model)]) == 0
    for _ in range(2):
        assert main(["score", str(model), str(folder), "-o", str(tmp_path / "s.csv")]) == 0
