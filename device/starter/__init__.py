"""The starter bundle and its float checkpoint."""
