"""Signatures, sealed files and encrypted transport, on the `cryptography` library."""
