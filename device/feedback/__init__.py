"""Hard examples: what the model was unsure of, kept for a person who labels it."""
