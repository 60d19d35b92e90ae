"""Exports networks as StableHLO, ONNX and a web page."""
