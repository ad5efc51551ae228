"""Files by their content.

files     walks, hashes and removes files on the disk
manifest  the list of files of a snapshot or upload
packs     many small blobs in one request
links     decides whether a symbolic link leads out of its folder
"""
