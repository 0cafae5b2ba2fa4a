"""Measuring models on pictures and captions they were not trained on."""
