# The image of a node, head and worker alike, with or without GPUs: Python, PyTorch with its own CUDA 13, Ray, arat-ray.
#
#   uv build --wheel --clear && docker build -t <your-registry>/arat-ray:0.1.0 .
#   docker run --rm --gpus all <your-registry>/arat-ray:0.1.0 python -c 'import torch; print(torch.cuda.is_available())'
#
# NVIDIA's driver (580 or newer) comes from the node, by its container toolkit. All Python packages are pinned in
# clusters/constraints.txt, the base by its digest: a tag can be moved to other code.
FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1

# wget: probes of KubeRay; rsync and ssh: `ray up` with docker; procps: `ray stop` and the dashboard; tini: reaps workers
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget rsync openssh-client procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home ray

COPY clusters/constraints.txt dist/*.whl /tmp/arat-ray/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --constraints /tmp/arat-ray/constraints.txt \
        "ray[default,train,tune]==2.60.0" boto3 google-api-python-client /tmp/arat-ray/*.whl \
    && rm -rf /tmp/arat-ray

ENV PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/ray
ENTRYPOINT ["tini", "-g", "--"]
CMD ["bash"]
