"""Many microphones and a camera: geometry, beams, acoustic images."""
