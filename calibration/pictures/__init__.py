"""The camera's view of a simulated scene: objects that move before a background, as frames."""
