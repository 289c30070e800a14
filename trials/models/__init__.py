"""Variants as ONNX files: found, checked, exported, converted."""
