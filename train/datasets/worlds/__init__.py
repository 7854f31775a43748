"""Settings of generated worlds, by name: `soundpost dataset world NAME`."""
