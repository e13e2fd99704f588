"""What every family's trainer needs: a budget, checkpoints that outlive `kill -9`, ranks, a log of losses, an end."""
