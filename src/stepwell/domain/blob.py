"""Blobs: bytes that lie beside the journal, named by nothing but their content."""

from __future__ import annotations

import hashlib


def blob_name(content: bytes) -> str:
    """The name of these bytes: SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
