"""Questions about a method by its name, or by the reference of a custom function."""

from __future__ import annotations

from trainables.config.method import Method
from trainables.config.methods import CUSTOM, CUSTOM_PREFIX, DENSE, METHODS


def method_of(name: str) -> Method:
    """The method of a name or of a reference to a custom function. Raises KeyError for an unknown name."""
    return CUSTOM if name.startswith(CUSTOM_PREFIX) else METHODS[name]


def is_method(name: str) -> bool:
    return name in METHODS or name.startswith(CUSTOM_PREFIX)


def method_label(name: str) -> str:
    """The name of a method in reports, which say of a reconstruction that it is one."""
    return f"{name} (reconstruction)" if method_of(name).is_reconstruction else name


def is_dense(name: str) -> bool:
    """Whether a method is the dense baseline."""
    return name == DENSE


def option_block(name: str) -> str:
    """Key under which a configuration holds the options of a method."""
    return "options" if name.startswith(CUSTOM_PREFIX) else name


def is_option(key: str) -> bool:
    """Whether a dotted key of a configuration is an option of a method."""
    block = key.partition(".")[0]
    return block == "options" or (block in METHODS and bool(METHODS[block].options.rules()))
