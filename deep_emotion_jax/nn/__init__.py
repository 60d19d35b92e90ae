"""The network: layers, the model and its weights."""
