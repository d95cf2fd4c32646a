"""What the agent says of itself: status, troubles, metrics, tables for people."""
