"""The code of the guide runs, page by page, as it stands there."""

import ast
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from PIL import Image

from skpadim import PadimDetector
from skpadim.datasets import load_folder, make_defects, save_defects

GUIDE = Path(__file__).parents[1] / "doc" / "guide"
# A comment of MyST above a block says why it is only read, and not run.
BLOCK = re.compile(r"^(% not run: .*\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="the pages are not here")
PAGES = [page for page in sorted(GUIDE.glob("*.md")) if BLOCK.search(page.read_text("utf-8"))]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Folders of images, and what the guide's first page has made of them."""
    folder = tmp_path_factory.mktemp("guide")
    drawn = make_defects(n_good=33, n_defective=8, image_size=64, random_state=0)
    for number, kind in enumerate(drawn.kinds):
        home = folder / "parts" / ("good" if kind == "good" else "bad")
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.data[number]).save(home / f"{number:03}_{kind}.png")
        if kind != "good":
            (folder / "parts" / "masks").mkdir(exist_ok=True)
            mask = Image.fromarray(drawn.masks[number].astype(np.uint8) * 255)
            mask.save(folder / "parts" / "masks" / f"{number:03}_{kind}.png")
    (folder / "parts" / "new").mkdir()
    for number in (30, 31, 32):
        image = folder / "parts" / "good" / f"{number:03}_good.png"
        image.rename(folder / "parts" / "new" / image.name)
    save_defects(
        folder / "data/mvtec_ad", "bottle", n_train=3, n_good=1, n_defective=1, image_size=64
    )
    parts = folder / "parts"
    every = load_folder(parts / "good", parts / "bad", masks=parts / "masks")
    good = sorted(map(str, (parts / "good").iterdir()))
    detector = PadimDetector("filter_bank", image_size=128, random_state=0).fit(good)
    joblib.dump(detector, folder / "model.joblib")
    return folder, {
        "good": good,
        "new": sorted(map(str, (parts / "new").iterdir())),
        "X": every.data,
        "y": every.target,
        "masks": every.masks,
        "arrays": np.array([[[0, 1]]]),
        "maps": np.array([[[0.0, 1.0]]]),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, names, monkeypatch):
    folder, values = names
    monkeypatch.chdir(folder)
    text = page.read_text("utf-8")
    if "256" not in text:  # which knows nothing of the images' size: smaller ones are quicker
        monkeypatch.setitem(PadimDetector.__init__.__kwdefaults__, "image_size", 128)
    values = {**values, "detector": joblib.load("model.joblib")}
    with sklearn.config_context():
        for not_run, code in BLOCK.findall(text):
            tree = ast.parse(code, str(page))
            if not not_run:
                exec(compile(tree, str(page), "exec"), values)
