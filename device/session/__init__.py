"""Recorded sessions: sound of all microphones and a camera's pictures on one timeline."""
