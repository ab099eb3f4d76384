"""What checks the annotations of the package under pytest: shapes by jaxtyping, types by beartype, ints as floats.

PEP 484 takes an int where a float is asked for, and so does pyright. Beartype by itself does not, and as it looks at
one item of a list only, drawn at random, a list of both would fail now and then.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
