"""What needs anomalib to be imported: loaded when one of its methods is fitted, never before."""
