"""`skpadim benchmark`: a data set, category by category."""

from __future__ import annotations

from skpadim.command._model import make_detector


def run_benchmark_command(options) -> None:
    """Run the subcommand."""
    from skpadim.benchmark import markdown_table, run_benchmark
    from skpadim.benchmark._categories import find_dataset
    from skpadim.datasets._layout import find_categories

    if not options.category:  # a mistyped folder is told before torch is imported
        find_categories(find_dataset(options.dataset), options.root)
    results = run_benchmark(
        options.dataset,
        options.root,
        categories=options.category,
        detector=make_detector(options, batch_size=options.batch_size),
        seed=options.seed,
        resolution=options.resolution,
        on_error="raise" if options.on_error == "stop" else options.on_error,
        output=options.output,
        verbose=1,
    )
    print(markdown_table(results))
