"""Networks of the published systems, and the pretrained weights that they start from."""
