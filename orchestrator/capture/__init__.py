"""Client: the code and data of this machine, as manifests and blobs. Nothing here changes what it reads."""
