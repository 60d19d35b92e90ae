"""Networks for other programs: StableHLO, ONNX, a web page."""
