"""The server: a Flower ServerApp, its federation, its intake and its store."""
