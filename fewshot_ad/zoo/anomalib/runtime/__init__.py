"""Code that imports anomalib: loaded when one of its methods is fitted, never before."""
