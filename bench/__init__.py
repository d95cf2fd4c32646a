"""``make bench``: this plugin and the reference plugins, side by side in one run. Never asserts on time."""
