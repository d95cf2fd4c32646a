"""What the operator wrote, and what follows from it."""
