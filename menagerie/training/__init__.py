"""The recipe of the miniature models: sizes, data, the training loop, one module a stage."""
