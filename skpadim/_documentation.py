"""Where the documentation is, for what points to it."""

DOCUMENTATION = "https://skpadim.readthedocs.io/en/stable"


class DocumentedMixin:
    """An estimator whose HTML view in a notebook links to its page of the documentation."""

    _doc_link_module = "skpadim"
    _doc_link_template = DOCUMENTATION + "/generated/skpadim.{estimator_name}.html"
