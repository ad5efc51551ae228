"""Images: a base image with apt packages, built by a Docker engine, identified by the content of the request.

images         all images of a home: the entry to this room
image_request  what a run asks of an image
probe          finds PATH and Pythons of an image, in a short container
build          builds one image, by BuildKit or the engine's classic builder
bake           builds an image that holds an environment, for registries
stream         follows a long answer of the engine: a build, a pull, a push
intermediate   removes intermediate images that a killed server left
"""
