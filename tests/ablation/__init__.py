"""What each part of the method is worth, and at what cost: `make ablation`, on generated scenes with the demo model."""
