"""`skpadim doctor`: what is wrong with a machine, a model or a folder, and what mends it.

Findings are a dict: what is the matter, to a command or what else is to be done.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from math import ceil
from pathlib import Path

from skpadim.calibration._conformal import samples_needed
from skpadim.command._arguments import add_command, share
from skpadim.command._given_images import collect_images, counted
from skpadim.command._labelled_folder import check_only_good
from skpadim.command._model import load_model
from skpadim.command._threshold import flagged_share, in_words, percent
from skpadim.files._files import check_output_file

_N_SAMPLE, _N_TIMED = 64, 5  # images that are scored; how often one is timed


def add_doctor(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "doctor",
        run_doctor,
        help="look for what makes results slow or wrong",
        description="Look at this machine; with a model, at its threshold and versions, and how "
        "long an image takes; with a folder of good images, whether they suit a fit; with both, "
        "whether the images have drifted from those that the model has learned from. Each finding "
        "comes with what mends it.",
        example="skpadim doctor model.joblib parts/new",
    )
    parser.add_argument(
        "names",
        metavar="MODEL FOLDER",
        nargs="*",
        type=Path,
        help="a model file, a folder of images, or both; without any, only the machine is looked "
        "at",
    )
    parser.add_argument(
        "--contamination",
        type=share,
        default=0.05,
        help="share of new good images that may be flagged, which takes enough images (default: "
        "0.05)",
    )
    parser.add_argument(
        "--write-groups",
        type=Path,
        metavar="FILE",
        help="CSV file for the groups of images that are nearly copies, as fit --groups reads it",
    )


def run_doctor(options) -> int:
    """Run the subcommand; returns its exit code."""
    for path in options.names:
        if not path.exists():
            raise FileNotFoundError(f"{path} is neither a file nor a folder: it does not exist.")
    folders = [path for path in options.names if path.is_dir()]
    models = [path for path in options.names if not path.is_dir()]
    if max(len(folders), len(models)) > 1:
        options.parser.error("give at most one model file and one folder")
    if options.write_groups is not None:
        check_output_file(options.write_groups)
    given = collect_images(folders) if folders else None
    if not models:  # a folder to learn from
        check_only_good(folders)
    facts, findings, notes = _look_at_machine()
    detector = None
    if models:
        detector, more, found = _look_at_model(models[0])
        facts, findings = facts | more, findings | found
    if given is not None:
        from skpadim.command._folder_check import look_at_folder

        readable, n_known, more, found = look_at_folder(given, folders[0], options, detector)
        facts, findings = facts | more, findings | found
        if models and readable:
            more, found = _look_at_both(detector, models[0], readable, n_known, folders[0])
            facts, findings = facts | more, findings | found
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    for what, remedy in findings.items():
        print(f"\nfound: {what}\n    -> {remedy}")
    print(f"\n{counted(len(findings), 'finding')}" if findings else "\nall is well")
    for note in notes:
        print(f"\nnote: {note}")
    return 4 if findings else 0


def _look_at_machine():
    """Facts of this machine, findings, and notes of what is so only now."""
    import importlib.util
    import platform
    import shutil

    import joblib
    import torch

    from skpadim import __version__

    cores, threads = joblib.cpu_count(), torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0
    has_gpu, has_numba = torch.cuda.is_available(), importlib.util.find_spec("numba") is not None
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    facts = {
        "versions": f"skpadim {__version__}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {'with' if has_numba else 'without'} numba",
        "CPU": f"{cores} cores, {torch.backends.cpu.get_cpu_capability()}",
        "GPU": torch.cuda.get_device_name() if has_gpu else "none that torch sees",
        "threads": f"{threads}, which wait {'asleep' if policy.lower() == 'passive' else 'awake'} "
        f"(OMP_WAIT_POLICY={policy})",
        "load": f"{load:.1f} in the last minute",
    }
    findings, notes = {}, []
    if load > 0.75 * cores:
        notes.append(
            f"other processes compute on this machine (load {load:.1f} on {cores} cores), and "
            "scoring takes a multiple of its time meanwhile. Leave them cores by OMP_NUM_THREADS="
            f"{max(1, round(cores - load))} skpadim ...; in Python programs also set "
            "OMP_WAIT_POLICY=PASSIVE, as this command does by itself."
        )
    if policy.lower() != "passive":
        what = "threads that wait take the cores from other processes."
        findings[what] = "export OMP_WAIT_POLICY=PASSIVE"
    if threads > cores:
        what = f"torch has {threads} threads for {cores} cores, which slows it down."
        findings[what] = f"export OMP_NUM_THREADS={cores}"
    if not has_numba and sys.version_info < (3, 15):
        what = "Numba is missing, so the quick loops are."
        findings[what] = "pip install numba"
    if not has_gpu and shutil.which("nvidia-smi"):
        what = f"this machine seems to have a GPU, and torch {torch.__version__} does not see it."
        findings[what] = "install torch for it: https://pytorch.org/get-started/locally"
    return facts, findings, notes


def _look_at_model(path):
    """A model's detector, facts, and findings."""
    import numpy as np

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = load_model(path)
    findings = {str(warning.message): f"skpadim fit FOLDER -o {path}" for warning in caught}
    calibrate = f"skpadim calibrate {path}"
    share, asked = None, detector.contamination
    if not hasattr(detector, "offset_"):
        what = f"{path} has no threshold."
        findings[what] = f"{calibrate} --on FOLDER_OF_OTHER_GOOD_IMAGES"
    elif (share := flagged_share(detector)) is None:
        what = (
            f"the threshold of {path} comes from images that it has learned from: it flags "
            "more new good ones than asked for, often most."
        )
        findings[what] = f"{calibrate} --on FOLDER_OF_OTHER_GOOD_IMAGES"
    if share is not None and share > asked * (1 + 1e-6):
        what = (
            f"{path} flags about {percent(share)} of new good images, and contamination is "
            f"{100 * asked:.2g} %: it was set by hand, or the images are too few for less."
        )
        findings[what] = (
            f"{calibrate} --contamination {ceil(1000 * share) / 1000:g}, or fit with at least "
            f"{samples_needed(asked)} images"
        )
    detector.set_params(n_jobs=None, verbose=0)
    generated = np.random.default_rng(0).integers(
        0, 256, (1, *detector.embedder_.image_size_, 3), np.uint8
    )
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noise cannot be aligned
        for _ in range(1 + _N_TIMED):
            start = time.perf_counter()
            detector.score_samples(generated)
            seconds.append(time.perf_counter() - start)
    del seconds[0]  # the first takes longer
    facts = {
        "model": f"{detector.backbone_}, {counted(detector.n_samples_seen_, 'image')}, "
        f"{in_words(detector)}",
        "one image": f"{1000 * np.median(seconds):.0f} ms, without reading it",
    }
    return detector, facts, findings


def _look_at_both(detector, model, paths, n_known, folder):
    """Whether the images are those that were learned from, and if not whether scores drifted."""
    import numpy as np
    from scipy.stats import mannwhitneyu

    facts = {"known to the model": f"it has learned from {n_known} of the {len(paths)} images"}
    if n_known > len(paths) / 2:
        facts["known to the model"] += "; give others to see whether they have drifted"
        return facts, {}
    sample = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, _N_SAMPLE).astype(int))]
    scores = detector.score_samples(sample)
    known = getattr(detector, "calibration_scores_", None)
    if known is None:
        return facts, {}
    facts["maps' highest values"] = (
        f"{-np.median(scores):.3g} in the middle, {-np.median(known):.3g} when it was calibrated"
    )
    n_flagged = int((scores < detector.offset_).sum())
    if mannwhitneyu(scores, known, alternative="less").pvalue > 0.001:
        return facts, {}
    what = (
        f"the images of {folder} are less normal than those that the threshold was set from: of "
        f"{len(sample)} looked at it flags {n_flagged}. Light, focus or position may have changed, "
        "or many are defective."
    )
    remedy = (
        f"skpadim score {model} {folder} --contact-sheet worst.png, to see them; if they are good: "
        f"skpadim calibrate {model} --on {folder}, or fit again with such images"
    )
    return facts, {what: remedy}
