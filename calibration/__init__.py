"""Estimates what the device applies: level, response, gains, delays, positions."""
