"""Reads the command line, the files it names and the code of the folder, and makes specs of them."""
