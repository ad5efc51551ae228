"""Files by their content.

files     walks, hashes and removes files on the disk
manifest  the list of files of a snapshot or upload
packs     many small blobs in one request
followed  lists a folder, with the content of links that lead out of it
scratch   private folders of clients in the folder for temporary files
log_pattern  what a person looks for in a log
links     decides whether a symbolic link leads out of its folder
"""
