"""The sub-commands of `soundpost` that run on the sensor, one module each."""
