"""The models of the world of tunes: autoencoder, generator, CLAP."""
