# syntax=docker/dockerfile:1
# Millrace with Ray, for every pod: Ray's nodes, the job that creates scheduled runs, and `docker run ... millrace --help`.
#
#   docker build --tag millrace:0.1.0 .
#   docker build --tag millrace:0.1.0-cuda --build-arg VARIANT=cuda .
#
# Neither needs CUDA's compiler. FLASH_ATTN does: see there.
#
# cpu takes torch's CPU build, cuda the one that pip gives by itself, which brings CUDA's libraries along: the node supplies the driver.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
# exactly the version in pyproject.toml
ARG TORCH_VERSION=2.13.0
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# extras of the project, such as "hub"
ARG EXTRAS=hub
# a version of flash-attn for the cuda variant, such as 2.8.3; compiles it, for which BASE_IMAGE must have CUDA's compiler
ARG FLASH_ATTN=
# fsspec's packages for the object stores you use, such as "s3fs gcsfs"
ARG STORAGE=s3fs>=2026.9.0
ENV PATH=/opt/millrace/bin:${PATH} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN python -m venv /opt/millrace
# torch first and alone: it changes seldom, and nothing after it can ask for another build
RUN case "${VARIANT}" in \
      cpu) pip install "torch==${TORCH_VERSION}" --index-url "${TORCH_CPU_INDEX}" ;; \
      cuda) pip install "torch==${TORCH_VERSION}" ;; \
      *) echo "VARIANT was '${VARIANT}'; it must be cpu or cuda" >&2; exit 1 ;; \
    esac
WORKDIR /src
COPY . .
RUN read -ra storage <<< "${STORAGE}"; pip install ".${EXTRAS:+[${EXTRAS}]}" "${storage[@]}"
# against the torch that is installed, so after it and without isolation
RUN if [ -n "${FLASH_ATTN}" ]; then \
      pip install ".[gpu]"; \
      pip install --no-build-isolation "flash-attn==${FLASH_ATTN}"; \
    fi
# small checkpoints to try things with, at a place that has no Python version in it
RUN cp -r jobs/demo/checkpoints /opt/millrace/demo

FROM ${BASE_IMAGE}
# KubeRay's probes call wget; g++ compiles kernels for the processor that a pod is on
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home millrace
COPY --from=build /opt/millrace /opt/millrace
# RAY_SERVE_...: see jobs/serve/environment.py. The last two let NVIDIA's container runtime hand GPUs to the cuda variant; elsewhere nothing reads them.
ENV PATH=/opt/millrace/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_USE_GRPC_BY_DEFAULT=1 \
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=1073741824 \
    RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0 \
    RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP=0 \
    RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE=1000 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=actors.serve.proxy.middlewares \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# by number, so that Kubernetes can see that it is not root
USER 1000:1000
WORKDIR /home/millrace
ENTRYPOINT ["millrace"]
CMD ["--help"]
