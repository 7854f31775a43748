"""What runs on the sensor, and every format that it reads."""

__version__ = "0.1.0"
