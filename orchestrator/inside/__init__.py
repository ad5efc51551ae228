"""Programs that every run has beside its own. They use only the standard library, in the syntax of Python 3.6.

shown_packages  shows `uv pip` the packages that the layer of a run stands on
image_pip       is the pip of a run that has its image as it is, and installs into its layer
ports           opens connections to the ports of a container's programs
stand_in        stands in for pip where a Python is too old for ours: gets pip from the Python itself, or says what to do
"""
