"""A table of regions as a data set in COCO's format."""

from __future__ import annotations

import numpy as np

from skpadim.regions._table import by_image


def to_coco(regions, images=None, *, root=None) -> dict:
    """Regions as a data set in COCO's format, to be written by :func:`json.dump`.

    CVAT, FiftyOne, Roboflow, Detectron2 and pycocotools read it. Each region has its box, and its
    mask as run lengths, which are exact and may have holes.

    Parameters
    ----------
    regions : DataFrame
        Of :meth:`PadimDetector.anomalous_regions`, or read from its CSV file.
    images : sequence of paths, or path of a folder, default=None
        All images that were looked at, also those in which nothing was found. Where regions have
        indices of images, the name of the file of each. None stands for the images of regions.
    root : path, default=None
        Folder that file names are relative to; None leaves them as they are.

    Returns
    -------
    dataset : dict
        ``images``, ``annotations`` and the one category "anomaly". A box is x, y, width and height
        in pixels, from the top left corner; ``attributes`` has the peak, the mean and the p-value
        (None if there is none).

    Raises
    ------
    ValueError
        If `regions` is another table, an image has a region and is not among `images`, or has none
        and can't be read for its size.

    See Also
    --------
    to_label_studio : The same for Label Studio.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PadimDetector
    >>> from skpadim.regions import to_coco
    >>> rng = np.random.default_rng(0)
    >>> good = rng.uniform(0.4, 0.6, size=(30, 64, 64))
    >>> new = rng.uniform(0.4, 0.6, size=(1, 64, 64))
    >>> new[0, 20:30, 30:40] = 0.9
    >>> detector = PadimDetector("filter_bank", image_size=64).fit(good)
    >>> dataset = to_coco(detector.anomalous_regions(new), images=["part_7.png"])
    >>> dataset["images"]
    [{'id': 1, 'file_name': 'part_7.png', 'height': 64, 'width': 64}]
    >>> len(dataset["annotations"])
    1
    """
    pictures, annotations = [], []
    for name, size, table in by_image(regions, images, root):
        if size is None:
            raise ValueError(
                f"{name} has no region and cannot be read, so its size, which COCO's format needs, "
                "is not known. Write the image to that file first."
            )
        height, width = size
        picture = {"id": len(pictures) + 1, "file_name": name, "height": height, "width": width}
        pictures.append(picture)
        for row in table.itertuples():
            attributes = {key: float(getattr(row, key)) for key in ("peak", "mean", "p_value")}
            if np.isnan(attributes["p_value"]):  # JSON has no NaN
                attributes["p_value"] = None
            left, top = int(row.left), int(row.top)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture["id"],
                    "category_id": 1,
                    "bbox": [left, top, int(row.right) - left, int(row.bottom) - top],
                    "area": int(row.area),
                    "segmentation": {
                        "size": [height, width],
                        "counts": [int(length) for length in row.rle.split()],
                    },
                    "iscrowd": 0,
                    "attributes": attributes,
                }
            )
    return {
        "info": {"description": "Anomalous regions, found by skpadim"},
        "licenses": [],
        "categories": [{"id": 1, "name": "anomaly", "supercategory": "anomaly"}],
        "images": pictures,
        "annotations": annotations,
    }
