"""Analysis of the graph of a Keras model: pieces, roles, stages, splits and hidden states."""
