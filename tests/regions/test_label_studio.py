import json
from xml.etree import ElementTree

import pytest

from skpadim.regions import LABEL_STUDIO_CONFIG, to_label_studio


def test_tasks_fit_the_labelling_configuration(fitted, folder):
    view = ElementTree.fromstring(LABEL_STUDIO_CONFIG)
    image, labels = view.find("Image"), view.find("RectangleLabels")
    assert labels.get("toName") == image.get("name")
    paths = sorted(folder.iterdir())
    regions = fitted.anomalous_regions(paths)
    tasks = json.loads(json.dumps(to_label_studio(regions, paths, root=folder), allow_nan=False))
    assert len(tasks) == len(paths)
    boxes = []
    for task, path in zip(tasks, paths, strict=True):
        assert task["data"] == {
            image.get("value").removeprefix("$"): f"/data/local-files/?d={path.name}"
        }
        of_image = regions[regions["image"] == str(path)]
        assert len(task["predictions"]) == (1 if len(of_image) else 0)
        for prediction in task["predictions"]:
            assert prediction["score"] == 1 - of_image["p_value"].min()
            assert 0 <= prediction["score"] < 1
            ids = [box["id"] for box in prediction["result"]]
            assert len(set(ids)) == len(ids)
            boxes += prediction["result"]
    assert len(boxes) == len(regions) > 3
    for box, row in zip(boxes, regions.itertuples(), strict=True):
        assert box["type"] == "rectanglelabels" == labels.tag.lower()
        assert (box["from_name"], box["to_name"]) == (labels.get("name"), image.get("name"))
        assert box["value"]["rectanglelabels"] == [labels.find("Label").get("value")]
        width, height = box["original_width"], box["original_height"]
        assert (width, height) == (64, 64)
        x, y = (box["value"][key] for key in "xy")
        found = (x * width / 100, y * height / 100)
        assert found == pytest.approx((row.left, row.top))
        right = (x + box["value"]["width"]) * width / 100
        bottom = (y + box["value"]["height"]) * height / 100
        assert (right, bottom) == pytest.approx((row.right, row.bottom))


def test_percents_are_of_the_width_and_of_the_height_and_names_are_urls(fitted, good):
    bright = good[0].copy()
    bright[20:30, 30:40] = 255
    wide = bright.repeat(2, axis=1)
    regions = fitted.anomalous_regions([wide])
    (task,) = to_label_studio(regions, ["in put/7#.png"], prefix="https://images.example/")
    assert task["data"]["image"] == "https://images.example/in%20put/7%23.png"
    box = task["predictions"][0]["result"][0]
    assert (box["original_width"], box["original_height"]) == (128, 64)
    assert box["value"]["x"] == 100 * regions["left"][0] / 128
    assert box["value"]["y"] == 100 * regions["top"][0] / 64
