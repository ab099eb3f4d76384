"""Fields that several optimisers have."""

from typing import Annotated, Literal

import pydantic

Beta = Annotated[float, pydantic.Field(ge=0, lt=1)]
Epsilon = Annotated[float, pydantic.Field(gt=0)]
BiasCorrection = Literal["on", "off"]
