"""Data sets, students, teachers, losses, recipes and metrics."""
