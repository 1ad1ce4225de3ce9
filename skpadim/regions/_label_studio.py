"""A table of regions as tasks for Label Studio, with the regions as predictions."""

from __future__ import annotations

import math
import os
from urllib.parse import quote

from skpadim._version import __version__
from skpadim.regions._table import by_image

LABEL_STUDIO_CONFIG = """\
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image">
    <Label value="anomaly"/>
  </RectangleLabels>
</View>
"""
"""The labelling configuration that the tasks of :func:`to_label_studio` are for."""


def to_label_studio(
    regions, images=None, *, root=None, prefix="/data/local-files/?d="
) -> list[dict]:
    """Regions as tasks for Label Studio, to be written by :func:`json.dump` and imported there.

    Each image is a task, and the boxes of its regions are a prediction, which an annotator accepts
    or corrects. Give the project the labelling configuration
    :data:`~skpadim.regions.LABEL_STUDIO_CONFIG`.

    Parameters
    ----------
    regions : DataFrame
        Of :meth:`PadimDetector.anomalous_regions`, or read from its CSV file.
    images : sequence of paths, or path of a folder, default=None
        All images that were looked at, also those in which nothing was found. Where regions have
        indices of images, the name of the file of each. None stands for the images of regions.
    root : path, default=None
        Folder that file names are relative to; None leaves them as they are. For files that Label
        Studio serves, the folder of its ``LOCAL_FILES_DOCUMENT_ROOT``.
    prefix : str, default="/data/local-files/?d="
        What stands before a file's name to make the URL of the image: by default that of files
        which Label Studio serves itself.

    Returns
    -------
    tasks : list of dict
        Boxes in percent of the image, as Label Studio has them. The score of a prediction, in
        [0, 1], is 1 minus the p-value of its most anomalous region.

    Raises
    ------
    ValueError
        If `regions` is another table, or an image has a region and is not among `images`.

    See Also
    --------
    to_coco : The regions' masks, too.

    Notes
    -----
    Label Studio serves files of its machine if it is started with
    ``LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`` and
    ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/data``, and if the project has a source storage of
    the kind "local files" whose folder lies below that one.

    Examples
    --------
    >>> import pandas as pd
    >>> from skpadim.regions import to_label_studio
    >>> regions = pd.DataFrame(
    ...     {"image": ["/data/parts/7.png"], "label": 1, "top": 20, "left": 30, "bottom": 30,
    ...      "right": 60, "p_value": 0.04, "image_height": 100, "image_width": 200, "rle": ""}
    ... )
    >>> (task,) = to_label_studio(regions, root="/data")
    >>> task["data"]
    {'image': '/data/local-files/?d=parts/7.png'}
    >>> task["predictions"][0]["result"][0]["value"]
    {'x': 15.0, 'y': 20.0, 'width': 15.0, 'height': 10.0, 'rotation': 0,
     'rectanglelabels': ['anomaly']}
    """
    tasks = []
    for name, size, table in by_image(regions, images, root):
        boxes = [_box(row, *size) for row in table.itertuples()]
        prediction = {"model_version": f"skpadim {__version__}", "result": boxes}
        if boxes and not math.isnan(table["p_value"].min()):
            prediction["score"] = 1 - float(table["p_value"].min())
        predictions = [prediction] if boxes else []
        tasks.append(
            {"data": {"image": prefix + quote(os.fsencode(name))}, "predictions": predictions}
        )
    return tasks


def _box(row, height, width):
    return {
        "id": f"region{row.label}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * row.left / width,
            "y": 100 * row.top / height,
            "width": 100 * (row.right - row.left) / width,
            "height": 100 * (row.bottom - row.top) / height,
            "rotation": 0,
            "rectanglelabels": ["anomaly"],
        },
    }
