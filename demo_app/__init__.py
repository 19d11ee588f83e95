"""A real language model behind Flask, limited by flask_ailimit. Run it with ``make demo``."""

from .app import create_app

__all__ = ["create_app"]
