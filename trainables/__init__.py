"""Public names, imported on first use, so that importing the package stays light."""

PUBLIC = ("load_sparse_model", "load_masks")


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainables.export import sparse_model

    return getattr(sparse_model, name)
