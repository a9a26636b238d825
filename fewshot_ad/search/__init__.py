"""How far a patch is from the nearest good one: coreset, memory bank, exact search."""
