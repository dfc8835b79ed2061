"""A consortium on Flower's own engine: certificates, kit, SuperLink, TLS terminator, SuperNodes. See README.md beside it."""
