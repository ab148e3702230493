"""The engine room: what the public modules share, and nobody else needs."""
