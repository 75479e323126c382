"""The menagerie: a small drawn world with known truth, and the miniature models trained on it."""
