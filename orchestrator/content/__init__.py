"""Files by their content: manifests of trees, packs of small blobs, and files on the disk."""
