"""Images: base image and apt packages, built by a Docker engine, identified by the content of what was asked."""
