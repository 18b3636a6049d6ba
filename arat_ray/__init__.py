"""arat-ray: search the trade-off between clean and robust accuracy."""

__version__ = "0.1.0"
