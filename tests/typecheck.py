"""The checker that conftest.py gives jaxtyping, which asks for it by a name that it can import."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float
