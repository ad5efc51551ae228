"""The bytes of the home.

outputs    moves the outputs of a run to runs/N
unsaved    the files of a run that has not ended
resources  finds, lists and reads what lies under runs/ and uploads/
tarred     files as tar streams
uploads    folders and files that a user uploads
incoming   one upload while it arrives
imports    runs of other trackers while they arrive
blobs      the files of code snapshots, by content
hashing    hashes artifacts in the background
dedup      lets identical outputs share their bytes
identity   tells a home from a copy of it
caches     what tools in runs download, for later runs
secrets    encrypts and decrypts secrets
"""
