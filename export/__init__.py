"""torch to ONNX to quantised TFLite, parity, bundle."""
