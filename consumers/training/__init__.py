"""The trainer of every family: the training loop, checkpoints that survive `kill -9`, ranks, and the task interface."""
