"""What estimators that take images tell scikit-learn of their input."""


class TakesImagesMixin:
    """An estimator whose samples are images: arrays of three dimensions or more, or paths."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags
