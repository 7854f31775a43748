"""The signed repository that devices fetch their models from: keys, contents, publication."""
