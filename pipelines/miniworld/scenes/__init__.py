"""The models of the world of scenes: autoencoder, generator, CLIP, rewriter, and those that look."""
