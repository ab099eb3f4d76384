"""Multiple choice: one number for each candidate text, softmax over the candidates.

Paper: BERT (arXiv:1810.04805), section 4.4.
"""

import pydantic

from tunesmith.nn.head import HeadConfig, Sizes
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head.classify import Classify
from tunesmith.nn.pooling import Pooling


class ChoiceConfig(HeadConfig):
    """Settings of the multiple-choice head."""

    pooling: Pooling = pydantic.Field(default="first", description="Which vector stands for a text.")
    hidden: Activation | None = pydantic.Field(default=None, description="Activation of a hidden layer.")
    hidden_norm: bool = pydantic.Field(default=False, description="Normalise behind the hidden layer, as ModernBERT.")
    hidden_bias: bool = pydantic.Field(default=True, description="Whether the hidden layer has a bias.")
    hidden_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout before the hidden layer.")
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1, description="Dropout before the output.")

    def build(self, sizes: Sizes) -> Classify:
        """A classification head with one output."""
        return Classify(
            d_model=sizes.d_model,
            num_labels=1,
            pooling=self.pooling,
            hidden=self.hidden,
            hidden_dropout=self.hidden_dropout,
            dropout=self.dropout,
            norm=sizes.norm if self.hidden_norm else None,
            hidden_bias=self.hidden_bias,
        )
