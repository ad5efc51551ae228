"""The client's view of code and data on this machine, as manifests and blobs. Nothing here changes what it reads.

snapshot  a snapshot of code, from a working tree, a commit or a URL
folder    finds the files of a folder that is no repository
patterns  patterns of files that are not sent
worktree  captures a git working tree with its uncommitted changes
gitmodules  reads which submodules a repository has
submodules  adds the files of submodules to a snapshot
lfs       finds the content of Git LFS files
git       runs git, independently of the user's settings
blobs     the bytes behind a snapshot
datatree  a folder or file to upload
"""
