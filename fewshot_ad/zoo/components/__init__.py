"""Code shared by several baselines, and parts of baselines that are no methods themselves."""
