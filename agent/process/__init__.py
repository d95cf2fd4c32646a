"""The process and its machine: how it lives, ends, logs, and what it is allowed."""
