"""Parts that every family's trainer needs: budget, checkpoints that survive `kill -9`, ranks, a loss log, stopping."""
