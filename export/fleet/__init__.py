"""Many sensors of one broker: how they are, and how a model is brought to them in waves."""
