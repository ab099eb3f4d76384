"""Masked language modelling and next-sentence prediction: does the second text follow the first?

The loss is the mean over hidden tokens plus the mean over pairs of -log p(label | first token).

Paper: BERT (arXiv:1810.04805), section 3.1, tasks 1 and 2.
Differs: as mlm; label 0 is "follows", as in the paper's code and in transformers.
"""

from tunesmith.objectives._pair import PairConfig


class NSPConfig(PairConfig):
    """Settings of BERT's objective."""
