import json

import numpy as np
import pytest

from skpadim.regions import to_coco, to_label_studio


def check_coco(dataset, mask_of):
    """What pycocotools and the tools that read its files rely on."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    assert len(sizes) == len(dataset["images"])
    assert len({image["file_name"] for image in dataset["images"]}) == len(sizes)
    categories = {category["id"] for category in dataset["categories"]}
    ids = [annotation["id"] for annotation in dataset["annotations"]]
    assert sorted(set(ids)) == sorted(ids)
    assert 0 not in ids  # pycocotools takes an annotation 0 for none
    for annotation in dataset["annotations"]:
        assert annotation["category_id"] in categories
        assert annotation["iscrowd"] == 0
        size = sizes[annotation["image_id"]]
        segmentation = annotation["segmentation"]
        assert tuple(segmentation["size"]) == size
        assert sum(segmentation["counts"]) == size[0] * size[1]
        mask = mask_of(segmentation["counts"], size)
        assert mask.sum() == annotation["area"]
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())


def test_the_data_set_is_as_coco_has_it(fitted, parts, folder, mask_of):
    paths = sorted(folder.iterdir())
    regions = fitted.anomalous_regions(paths)
    dataset = json.loads(json.dumps(to_coco(regions, paths, root=folder), allow_nan=False))
    check_coco(dataset, mask_of)
    assert [image["file_name"] for image in dataset["images"]] == [path.name for path in paths]
    assert len(dataset["annotations"]) == len(regions) > 3
    masks = fitted.anomaly_mask(paths, size="original")
    for image, mask in zip(dataset["images"], masks, strict=True):
        union = np.zeros_like(mask)
        for annotation in dataset["annotations"]:
            if annotation["image_id"] == image["id"]:
                union |= mask_of(annotation["segmentation"]["counts"], mask.shape)
        np.testing.assert_array_equal(union, mask)
    assert dataset["annotations"][0]["attributes"] == {
        "peak": pytest.approx(regions["peak"][0]),
        "mean": pytest.approx(regions["mean"][0]),
        "p_value": regions["p_value"][0],
    }


def test_without_p_values_there_is_none_in_the_file(make_detector, good, parts):
    detector = make_detector(calibration="training").fit(good)
    regions = detector.anomalous_regions(parts.data[-2:])
    dataset = to_coco(regions, ["a.png", "b.png"])
    text = json.dumps(dataset, allow_nan=False)
    assert json.loads(text)["annotations"][0]["attributes"]["p_value"] is None


def test_an_image_without_regions_must_be_readable_for_its_size(fitted, folder):
    paths = sorted(folder.iterdir())
    regions = fitted.anomalous_regions(paths)
    with pytest.raises(ValueError, match=r"gone\.png has no region.*Write the image"):
        to_coco(regions, [*paths, folder / "gone.png"])
    assert to_label_studio(regions, [*paths, "gone.png"])[-1]["predictions"] == []
