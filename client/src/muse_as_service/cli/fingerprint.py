"""Fingerprints as arguments of commands."""

from __future__ import annotations

import argparse

from .._fingerprint import checked_fingerprint


def fingerprint(text: str) -> str:
    """The type of an option with the fingerprint of a model."""
    try:
        checked_fingerprint(text)
    except ValueError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from None
    return text
