"""The report: in headless Chromium where that is installed, and what can be told without."""

import base64
import io
import json
import re
import shutil

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

import skpadim
from skpadim import InspectionReport, PadimDetector, UnreadableImageError
from skpadim.datasets import make_defects
from skpadim.metrics import evaluate
from skpadim.plotting.report import _findings, _report

ATTACK = "<script>alert(1)</script>.png"
N_GOOD, N_UNSEEN = 24, 8  # the last good ones are not trained on


@pytest.fixture(scope="module")
def detector(parts):
    detector = PadimDetector(
        "filter_bank", image_size=64, contamination=0.1, batch_size=8, random_state=0
    )
    return detector.fit(parts.data[: N_GOOD - N_UNSEEN])


@pytest.fixture(scope="module")
def inspected(parts, tmp_path_factory):
    """X, y, masks and kinds: the last image is broken, the one before has no mask."""
    root = tmp_path_factory.mktemp("report")
    test = range(N_GOOD - N_UNSEEN, len(parts.data))
    names = [ATTACK, *(f"part_{index:02}.png" for index in test[1:])]
    paths = [root / name for name in names]
    (root / ATTACK).parent.mkdir()
    for index, path in zip(test, paths, strict=True):
        Image.fromarray(parts.data[index]).resize((64, 48)).save(path)
    (root / "broken.png").write_text("no image")
    masks = [None if parts.target[i] == 1 else parts.masks[i][8:-8] for i in test]
    masks[-1] = None
    X = [*map(str, paths), str(root / "broken.png")]
    kinds = [*(str(parts.kinds[i]) for i in test), "good"]
    return X, [*parts.target[list(test)], 1], [*masks, None], kinds


@pytest.fixture(scope="module")
def report(detector, inspected):
    X, y, masks, kinds = inspected
    return InspectionReport(
        detector, X, y, masks, kinds=kinds, on_error="skip", model="my m.joblib"
    )


@pytest.fixture(scope="module")
def file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write_html(path)
    return path


@pytest.fixture(scope="module")
def scores(detector, inspected):
    """Of the images that can be read, with the sign of maps."""
    return -detector.score_samples(inspected[0][:-1])


@pytest.fixture(scope="module")
def bad(inspected):
    return np.array(inspected[1][:-1]) < 0


def data_in(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1))


# ---- without a browser


def test_without_a_script_the_page_says_what_there_is(file, report, scores, detector):
    html = file.read_text(encoding="utf-8")
    n_flagged = (scores > -detector.offset_).sum()
    assert f'<h1 id="headline">{n_flagged} of {len(scores)} images flagged</h1>' in html
    assert "Open this file in a browser." in html
    assert (
        repr(report)
        == f"<InspectionReport of {len(scores) + 1} images: write_html(path), or open()>"
    )


def test_the_file_holds_everything(file, report, detector, inspected, scores):
    html = file.read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")  # a name, not fetched
    assert "https://" not in html
    data = data_in(html)
    order = np.argsort(-scores)
    np.testing.assert_allclose([row["score"] for row in data["rows"]], scores[order], rtol=1e-6)
    assert data["threshold"] == -detector.offset_
    assert all(row["image"].startswith("data:image/") for row in data["rows"])
    assert (data["rows"][0]["width"], data["rows"][0]["height"]) == (64, 48)
    assert [name for name, _ in data["unreadable"]] == ["broken.png"]
    assert list(map(tuple, data["unreadable"])) == report.unreadable
    assert data["unmasked"] == ["part_32.png"]
    assert "'my m.joblib'" in data["command"]
    assert dict(map(tuple, data["about"]))["Fit"]["backbone"] == "filter_bank"


def test_odds_are_those_of_the_p_values(file, detector, inspected, scores):
    rows = data_in(file.read_text(encoding="utf-8"))["rows"]
    p_values = detector.p_values(inspected[0][:-1])[np.argsort(-scores)]
    for row, p_value in zip(rows, p_values, strict=True):
        if p_value > 0.5:
            assert row["odds"] == "most good parts look at least this odd"
        else:
            assert f"1 good part in {1 / p_value:.0f} looks this odd" in row["odds"]
    assert rows[0]["odds"] == f"at most 1 good part in {N_GOOD - N_UNSEEN + 1} looks this odd"


def test_names_cannot_end_the_data(file):
    html = file.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in html
    assert ATTACK in [row["name"] for row in data_in(html)["rows"]]


def test_metrics_are_those_of_evaluate(detector, inspected):
    X, y, masks, _ = ([*part[:-2]] for part in inspected)  # all have what they need
    found = InspectionReport(detector, X, y, masks)._found
    expected = evaluate(detector, X, y, masks)
    for name in ("image_roc_auc", "pixel_roc_auc", "aupro_0.3"):
        assert found.metrics[name] == expected[name]


def test_arrays_without_labels_or_threshold(good):
    detector = PadimDetector("filter_bank", image_size=64, calibration=None, random_state=0)
    html = InspectionReport(detector.fit(good[:16]), good[:3])._render()
    data = data_in(html)
    assert data["threshold"] is None
    assert data["start"] == max(row["score"] for row in data["rows"])
    assert "no threshold of its own" in data["notes"][0]
    assert [row["good"] for row in data["rows"]] == [None] * 3
    assert sorted(row["name"] for row in data["rows"]) == ["image 0", "image 1", "image 2"]


def test_a_notebook_shows_the_most_anomalous_images(report, monkeypatch):
    monkeypatch.setattr(_report, "_IN_NOTEBOOK", 3)
    html = report._repr_html_()
    assert html.startswith("<iframe ")
    assert html.count("data:image/png") < 3 * 3
    assert "<script" not in html  # all of the page is an attribute


def test_drift_is_told(detector, parts):
    good = parts.data[parts.target == 1]
    same = make_defects(12, 0, difficulty=0, image_size=64, random_state=1).data
    same = data_in(InspectionReport(detector, same, np.ones(12))._render())
    assert same["drift"].startswith("No drift is seen: the 12 good images score as the 16 good")
    learned = data_in(InspectionReport(detector, good[:16], np.ones(16))._render())
    assert "the model has learned from some of these images" in learned["drift"]
    inverted = data_in(InspectionReport(detector, 255 - good)._render())
    assert inverted["drift"].startswith("Drift: all 24 images score higher")
    assert "Which of them are good is not known" in inverted["drift"]
    assert inverted["drift"] in inverted["notes"]


@pytest.fixture(scope="module")
def aligned(parts):
    """A detector that aligns, and images: some moved, the last beyond its limits."""
    detector = PadimDetector("filter_bank", image_size=64, align="translation", random_state=0)
    moved = [np.roll(image, 4, axis=0) for image in parts.data[22:27]]
    return detector.fit(parts.data[:20]), np.stack([*moved, np.roll(parts.data[-1], 30, axis=1)])


@pytest.fixture(scope="module")
def aligned_report(aligned):
    with pytest.warns(UserWarning, match="1 image cannot be aligned"):
        return InspectionReport(*aligned)._render()


def test_the_report_says_where_parts_lay_and_which_were_not_found(aligned, aligned_report):
    detector, X = aligned
    data, table = data_in(aligned_report), detector.aligner_.measure(X)
    for row in data["rows"]:
        measured = table.iloc[int(row["name"].split()[1])]
        for name in ("dy", "dx", "angle", "scale", "peak", "aligned"):
            assert row["alignment"][name] == pytest.approx(float(measured[name]), abs=1e-3)
        assert row["unseen"] == bool(measured["aligned"])  # the other is scored as it lies
    assert [row["name"] for row in data["rows"] if not row["alignment"]["aligned"]] == ["image 5"]
    fit = dict(map(tuple, data["about"]))["Fit"]
    assert fit["alignment"] == "translation"


def test_maps_are_transparent_where_nothing_is_inspected(aligned, aligned_report):
    detector, X = aligned
    maps = detector.anomaly_map(X[:5])
    for row in data_in(aligned_report)["rows"]:
        index = int(row["name"].split()[1])
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["map"].split(",")[1]))))
        if index < 5:
            np.testing.assert_array_equal(picture[..., 1] == 0, np.isnan(maps[index]))


def test_regions_are_those_of_the_detector(report, detector, inspected):
    rows = {row["name"]: row for row in data_in(report._render())["rows"]}
    for name, table in detector.anomalous_regions(inspected[0][:-1]).groupby("image"):
        listed = rows[name.rpartition("/")[2] if ATTACK not in name else ATTACK]["regions"]
        table = table.nlargest(9, "peak")
        for column in ("top", "left", "bottom", "right", "area", "p_value"):
            np.testing.assert_allclose([each[column] for each in listed], table[column])
    assert sum(bool(row["regions"]) for row in rows.values()) > 3


def test_what_is_not_inspected_at_all_has_no_score(detector, good, monkeypatch):
    maps = detector.anomaly_map(good[:2])
    maps[1] = np.nan
    monkeypatch.setattr(_findings, "iter_maps_and_errors", lambda *_: [(maps, {})])
    data = data_in(InspectionReport(detector, good[:2])._render())
    assert data["unreadable"] == [["image 1", "has no pixel that is inspected."]]
    assert len(data["rows"]) == 1


def test_workers_say_where_parts_lay_too(aligned):
    detector, X = aligned
    shared = clone(detector).set_params(n_jobs=2, batch_size=2)
    with joblib.parallel_config("threading"):
        report = InspectionReport(
            shared.set_params(contamination=0.1).fit(X[:5].repeat(2, 0)), X[:5]
        )
        assert all(row["alignment"]["peak"] > 0.8 for row in data_in(report._render())["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": []}, "X has no images"),
        ({"y": [1]}, "y has 1 labels for 3 images"),
        ({"y": [1, 1, -1], "masks": [None]}, "masks has 1 entries for 3 images"),
        ({"y": [1, 1, -1], "kinds": ["good"]}, "kinds has 1 entries for 3 images"),
        ({"masks": [None] * 3}, "masks are given and y is not"),
        ({"on_error": "stop"}, "on_error='stop' must be"),
    ],
)
def test_bad_input_is_refused_at_once(arguments, message, detector, good):
    with pytest.raises(ValueError, match=re.escape(message)):
        InspectionReport(detector, **{"X": good[:3], **arguments})


def test_other_detectors_are_refused(good):
    with pytest.raises(TypeError, match="detector is a str; it must be a fitted PadimDetector"):
        InspectionReport("model.joblib", good)


def test_a_folder_as_output_is_refused_before_images_are_scored(tmp_path, detector):
    report = InspectionReport(detector, ["nowhere.png"])
    with pytest.raises(IsADirectoryError, match="is a folder"):
        report.write_html(tmp_path)


def test_unreadable_images_stop_it_unless_skipped(tmp_path, detector, inspected):
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        InspectionReport(detector, inspected[0]).write_html(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_open_shows_the_written_file(report, monkeypatch):
    shown = []
    monkeypatch.setattr(_report.webbrowser, "open", shown.append)
    report.open()
    assert shown[0].startswith("file://")
    assert skpadim.plotting.InspectionReport is InspectionReport


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def seen(browser, file):
    """The page in the dark on a phone, and what it asked for and complained of."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page, requests, complaints = context.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    return page, requests, complaints


@pytest.fixture
def page(seen):
    """The page as it is at first."""
    page = seen[0]
    page.reload()
    return page


def counts(page):
    figures = page.locator("#counts dd")
    return {figure.get_attribute("data-count"): figure.inner_text() for figure in figures.all()}


def names(page):
    return page.locator("#gallery li:not([hidden]) .name").all_text_contents()


def set_threshold(page, threshold):
    page.locator("#number").fill(repr(float(threshold)))
    page.locator("#number").press("Enter")


def wait_until(page, condition):
    """The page's policy keeps Playwright from evaluating text there until it is true."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it has not come to be within 10 s")


def test_a_threshold_that_is_none_is_told(page):
    before = counts(page)
    page.locator("#number").fill("-3")
    page.locator("#number").press("Enter")
    told = page.locator("#number").evaluate("box => box.validationMessage")
    assert told == "Thresholds are numbers above 0."
    assert counts(page) == before


def test_parts_are_counted_once_and_there_is_no_line_without_a_model(
    browser, detector, parts, tmp_path
):
    grouped = clone(detector).fit(parts.data[:20], groups=np.arange(20) // 2)
    InspectionReport(grouped, parts.data[20:24]).write_html(tmp_path / "report.html")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    said = page.locator("#expected").inner_text()
    assert "20 training images, each scored as if left out (10 parts, each counted once)" in said
    assert not page.locator("#commands").is_visible()  # it has this threshold already
    set_threshold(page, 20)
    assert page.locator("#python").is_visible()
    assert not page.locator("#shell").is_visible()
    assert page.locator("#order option").count() == 3  # no kinds to order by
    page.close()


def test_counts_equal_numpy_s(page, detector, scores, bad):
    thresholds = [-detector.offset_, scores.min() / 2, np.median(scores), scores.max()]
    for threshold in thresholds:
        if threshold != -detector.offset_:  # where the page begins
            set_threshold(page, threshold)
        flagged = scores > threshold
        found, n_flagged = (flagged & bad).sum(), flagged.sum()
        expected = {
            "Flagged": str(n_flagged),
            "Missed": str((~flagged & bad).sum()),
            "False alarms": str((flagged & ~bad).sum()),
            "Precision": f"{100 * found / n_flagged:.1f} %" if n_flagged else "\N{EN DASH}",
            "Recall": f"{100 * found / bad.sum():.1f} %",
        }
        assert counts(page) == expected
        assert page.locator("#headline").inner_text().startswith(f"{n_flagged} of {len(scores)} ")
        above = (-detector.calibration_scores_ > threshold).sum()
        share = (above + 1) / (len(detector.calibration_scores_) + 1)
        assert f"{100 * share:.1f} %" in page.locator("#expected").inner_text()
    page.locator("#reset").click()
    assert page.locator("#python").inner_text() == f"detector.offset_ = {detector.offset_!r}"


def test_the_keyboard_moves_the_threshold(page, scores):
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    assert counts(page)["Flagged"] == str(len(scores))
    page.keyboard.press("End")
    assert counts(page)["Flagged"] == "0"
    page.keyboard.press("PageDown")
    threshold = float(page.locator("#python").inner_text().rpartition("-")[2])
    assert counts(page)["Flagged"] == str((scores > threshold).sum())
    assert page.locator("#shell").inner_text().endswith(f" --threshold {threshold:g}")


def test_the_table_counts_each_kind(page, scores, bad, inspected):
    threshold = np.median(scores[bad])
    set_threshold(page, threshold)
    kinds = np.array(inspected[3][:-1])
    lines = [line.split("\t") for line in page.locator("#kinds tbody").inner_text().splitlines()]
    table = {kind: (int(n), int(flagged)) for kind, n, flagged, _ in lines}
    for kind in set(kinds[bad]):
        chosen = kinds == kind
        assert table[kind] == (chosen.sum(), (scores[chosen] > threshold).sum())


def test_sorting_sorts(page, scores, inspected):
    root = inspected[0][-1].removesuffix("broken.png")
    known = np.array([path.removeprefix(root) for path in inspected[0][:-1]])
    assert names(page) == known[np.argsort(-scores)].tolist()
    page.locator("#order").select_option("best")
    assert names(page) == known[np.argsort(scores)].tolist()
    page.locator("#order").select_option("name")
    assert names(page)[1:] == sorted(known)[1:]


def test_filtering_filters(page, scores, bad):
    page.locator("#search").fill("PART_2")
    assert sorted(names(page)) == [f"part_{number}.png" for number in range(20, 30)]
    page.locator("#search").fill("")
    page.locator("#kind").select_option("good")
    assert len(names(page)) == N_UNSEEN
    page.locator("#kind").select_option("")
    page.locator("#verdict").select_option("missed")
    set_threshold(page, np.median(scores[bad]))
    assert len(names(page)) == (scores[bad] <= np.median(scores[bad])).sum()
    assert page.locator("#shown").inner_text().startswith(f"{len(names(page))} of {len(scores)} ")


def test_regions_are_coloured_above_the_threshold_alone(page, scores):
    canvas = page.locator("#gallery canvas").first

    def n_drawn():
        """Pixels of the first map that are not transparent, once it is drawn."""
        canvas.scroll_into_view_if_needed()
        wait_until(page, lambda: canvas.evaluate("canvas => canvas.width") == 320)
        return canvas.evaluate(
            """canvas => {
                const copy = new OffscreenCanvas(320, 240).getContext("2d");
                copy.drawImage(canvas, 0, 0);
                const pixels = copy.getImageData(0, 0, 320, 240).data;
                return pixels.filter((value, i) => i % 4 === 3 && value).length;
            }"""
        )

    of_model = n_drawn()
    assert 0 < of_model < 320 * 240 / 2
    set_threshold(page, scores.max())  # of the mask the outline is left
    wait_until(page, lambda: 0 < n_drawn() < of_model)
    of_mask = n_drawn()
    set_threshold(page, scores.max() * (1 - 1e-6))  # a spot that is seen
    wait_until(page, lambda: of_mask + 40 < n_drawn() < of_model)
    set_threshold(page, scores.min() / 2)
    wait_until(page, lambda: n_drawn() > 320 * 240 / 2)


def test_parts_that_were_not_aligned_are_told_and_found(browser, aligned_report, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(aligned_report, encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    assert "1 image could not be aligned" in page.locator("#notes").inner_text()
    assert page.locator("#unseen-legend").is_visible()
    assert page.locator("#gallery .unaligned").all_text_contents() == ["! not aligned"]
    page.locator("#verdict").select_option("not aligned")
    assert names(page) == ["image 5"]
    page.locator("#gallery li:not([hidden]) button").click()
    assert "Not aligned, and scored as it lies." in page.locator("#dialog-alignment").inner_text()
    page.keyboard.press("Escape")
    page.locator("#verdict").select_option("all")
    page.locator("#order").select_option("name")
    canvas = page.locator("#gallery canvas").first  # of a part four pixels lower, of 64
    wait_until(page, lambda: canvas.evaluate("canvas => canvas.width") == 320)
    alphas = canvas.evaluate(
        "canvas => [2, 100].map(y => canvas.getContext('2d').getImageData(160, y, 1, 1).data[3])"
    )
    assert alphas == [128, 0]  # hatched, and as it was
    page.close()


def test_regions_are_listed_at_the_model_s_threshold(page, detector, scores):
    button, listed = page.locator("#gallery button").first, page.locator("#dialog-regions li")
    button.click()
    assert listed.count() > 0
    assert re.fullmatch(r"\d+ pixels, \d+ wide and \d+ high, p = 0.0\d+", listed.first.inner_text())
    assert page.locator("#dialog-alignment").inner_text() == ""  # it does not align
    page.keyboard.press("Escape")
    set_threshold(page, scores.max() / 2)
    button.click()
    assert not listed.first.is_visible()
    page.keyboard.press("Escape")


def test_an_image_is_enlarged_by_keyboard_and_closed(page):
    page.locator("#gallery button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#dialog-name").inner_text() == names(page)[0]
    page.keyboard.press("ArrowRight")
    assert page.locator("#dialog-name").inner_text() == names(page)[1]
    page.keyboard.press("Escape")
    assert not page.locator("#dialog").is_visible()


def test_a_name_with_markup_is_shown_as_text(page):
    page.locator("#search").fill("<script>")
    assert names(page) == [ATTACK]
    assert page.locator("#gallery script").count() == 0


def test_everything_has_a_name(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, button, img, #gallery canvas')].filter(e => "
        "!(e.labels?.length || e.ariaLabel || e.alt || e.innerText || e.ariaHidden || "
        "e.closest('button')?.querySelector('img[alt]') || e.closest('dialog'))).length"
    )
    assert nameless == 0
    assert page.locator("#summary").get_attribute("aria-live") == "polite"


def test_a_phone_scrolls_down_only(page):
    for width in (320, 360):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_is_readable(page, scheme):
    page.emulate_media(color_scheme=scheme)

    def luminance(text):
        colour = np.array(re.findall(r"[\d.]+", text)[:3], float) / 255
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for selector in ("h1", "#summary", "#expected", ".facts", ".badge", "code", "#about th", "dt"):
        ink, ground = page.locator(selector).first.evaluate(
            """element => {
                const ink = getComputedStyle(element).color;
                while (getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)")
                    element = element.parentElement;
                return [ink, getComputedStyle(element).backgroundColor];
            }"""
        )
        low, high = sorted(map(luminance, (ink, ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, ink, ground)
    page.emulate_media(color_scheme="dark")


def test_nothing_is_fetched_and_nothing_complained_of(seen, file):
    _, requests, complaints = seen
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {file.as_uri()}
