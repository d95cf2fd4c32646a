"""``routablectl``."""
