"""What can be asked of a server beside runs: one class for each noun, made from a `Client`'s transport.

with connect() as client:
    Projects(client.transport).create("jokes")
"""
