"""Data sets of sound, pictures and acoustic images, in the layouts they are published in."""
