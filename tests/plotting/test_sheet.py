"""Sheets of pictures: each where it belongs, whatever its size and its caption."""

import numpy as np

from skpadim.plotting._sheet import beside, sheet_of


def picture(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


def test_pictures_lie_in_cells_of_one_size_with_captions_below():
    rows = [
        [picture(20, 40, (255, 0, 0)), picture(40, 20, (0, 255, 0))],
        [picture(9, 9, (0, 0, 255))],
    ]
    captions = [["one", "two\n二"], ["\udcff three"]]  # letters that the font does not have
    sheet = np.asarray(sheet_of(rows, captions, ["first", "second"]))
    places = {}
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}.items():
        found = np.argwhere((sheet == colour).all(axis=2))
        places[name] = (*found.min(axis=0), *(found.max(axis=0) - found.min(axis=0) + 1))
    assert places["red"][2:] == (20, 40)
    assert places["green"][2:] == (40, 20)
    assert places["blue"][2:] == (9, 9)
    assert places["red"][0] == places["green"][0] + 10  # in the middle of its cell
    assert places["green"][1] > places["red"][1] + 40
    assert places["blue"][0] > places["green"][0] + 40
    dark = sheet.max(axis=2) < 128
    below = slice(places["green"][0] + 40, places["green"][0] + 40 + 32)
    assert dark[below].any()
    assert dark[: places["green"][0]].any()  # titles


def test_sheets_stand_beside_each_other():
    small, large = (sheet_of([[picture(s, s, (255, 0, 0))]], [["x"]]) for s in (20, 40))
    joined = beside([small, large])
    assert joined.size == (small.width + large.width, large.height)
