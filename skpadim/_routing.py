"""What to tell who gives masks, or other metadata, where scikit-learn does not pass them on."""

from __future__ import annotations


def how_to_pass_masks(scorer: str = "aupro_scorer") -> str:
    """Say how masks get to a scorer of a search or cross-validation."""
    return (
        "In a search or cross-validation, call sklearn.set_config(enable_metadata_routing=True) "
        f"first; then give scoring={scorer}.set_score_request(masks=True), and pass masks=masks to "
        'fit of the search, or params={"masks": masks} to cross_validate and cross_val_score.'
    )


def refuse_metadata(method: str, metadata: dict) -> None:
    """Raise a TypeError if a fit was given anything that it does not take.

    Without metadata routing, a search hands all to the fit that was meant for its scorers.
    """
    if "masks" in metadata:
        raise TypeError(
            f"{method} takes no masks: it learns from good images alone. They are for scorers. "
            f"{how_to_pass_masks()}"
        )
    if metadata:
        raise TypeError(f"{method} got an unexpected keyword argument {min(metadata)!r}.")
