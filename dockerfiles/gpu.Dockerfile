# What the image of runs with GPUs has beyond cpu.Dockerfile, after which it is read. The driver comes from the machine,
# mounted by NVIDIA's container toolkit; CUDA comes with the Python packages (or with BASE). Built by spell; by hand:
#
#   cat cpu.Dockerfile gpu.Dockerfile | docker build --build-arg BASE=debian:bookworm --build-arg PYTHON=python3 -
#
# What of the driver is mounted: CUDA and nvidia-smi.
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
