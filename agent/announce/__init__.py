"""What the agent tells others by itself: the runtime, by files in its directories; Kubernetes, on its Node."""
