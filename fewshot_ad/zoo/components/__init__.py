"""What several baselines share, and parts of baselines that are no methods themselves."""
