"""Files by their content.

manifest  the list of files of a snapshot or upload
packs     many small blobs in one request
files     walks, hashes and removes files on the disk
"""
