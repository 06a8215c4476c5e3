"""The graph of a Keras model: where it is cut, what its parts are for, what passes between them."""
