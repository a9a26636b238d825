"""From good photographs to a product: views, scale, patch embeddings, memory banks, threshold."""
