"""Sound event detection: what sounds, and from when to when (Liang et al. 2021)."""
