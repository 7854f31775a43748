"""Teachers that see: students that learn from video and acoustic images at training time only."""
