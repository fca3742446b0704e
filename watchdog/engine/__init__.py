"""The loops. So far: carrying out one action from the decision to its proof."""
