"""From good images to a product: views, scale, patch embeddings, memory banks, threshold."""
