"""The network: layers, the model, its weights."""
