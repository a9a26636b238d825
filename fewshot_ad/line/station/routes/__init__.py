"""The addresses of a station, a file for each group of them."""
