"""Masked language modelling and sentence-order prediction: are the two texts in order?

The loss is the mean over hidden tokens plus the mean over pairs of -log p(label | first token).

Paper: ALBERT (arXiv:1909.11942), section 3.1.
Differs: as mlm; label 1 is "swapped", as in transformers. The paper masks n-grams: set ``mlm.unit=ngram``. What its
released code does with single sentences we do not do, see input segment_pair.
"""

from tunesmith.objectives._pair import PairConfig


class SOPConfig(PairConfig):
    """Settings of ALBERT's objective."""
