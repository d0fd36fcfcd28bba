"""Running a model: images in, logits out, on the provider that was asked for or not at all."""
