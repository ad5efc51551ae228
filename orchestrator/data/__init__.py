"""Bytes of the home: outputs, resources, uploads, blobs, secrets, and their hashes."""
