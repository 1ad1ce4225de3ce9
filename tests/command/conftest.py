import joblib
import pytest

from skpadim import PadimDetector


@pytest.fixture(scope="session")
def _model_bytes(good, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.joblib"
    detector = PadimDetector("filter_bank", image_size=64, crop_size=None, random_state=0)
    joblib.dump(detector.fit(good), file)
    return file.read_bytes()


@pytest.fixture
def model(_model_bytes, tmp_path):
    """A model file of the good parts."""
    file = tmp_path / "model.joblib"
    file.write_bytes(_model_bytes)
    return file


@pytest.fixture
def test_folder(parts, tmp_path):
    """The parts as a test folder of MVTec AD has them, masks beside it."""
    from PIL import Image

    for index, (image, kind, mask) in enumerate(
        zip(parts.data, parts.kinds, parts.masks, strict=True)
    ):
        (tmp_path / "test" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "test" / kind / f"{index:03}.png")
        if kind != "good":
            (tmp_path / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(tmp_path / "ground_truth" / kind / f"{index:03}_mask.png")
    return tmp_path / "test"
