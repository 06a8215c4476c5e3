"""How the predictions of each kind of task are measured."""
