"""What one inspection returns: the verdict, the places, the picture of it, and whether the image could be judged."""
