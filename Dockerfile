# The demo, for NVIDIA GPUs or, with --build-arg TORCH_INDEX=..., for CPUs; docs/demo.md says how to build and run it.
FROM python:3.13-slim AS build
ARG TORCH_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/glcic
WORKDIR /source
COPY constraints.txt .
# PyPI's PyTorch is for CUDA; the build for CPUs, which is a fraction of its size, has an index of its own.
RUN /opt/glcic/bin/pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY LICENSE README.md pyproject.toml setup.py ./
COPY glcic_hub glcic_hub
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt /opt/glcic/bin/pip install ".[demo]"

FROM python:3.13-slim
RUN useradd --create-home glcic
COPY --from=build /opt/glcic /opt/glcic
ENV PATH=/opt/glcic/bin:$PATH
USER glcic
WORKDIR /home/glcic
EXPOSE 7860
HEALTHCHECK --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=5)"]
CMD ["glcic", "demo", "--host", "0.0.0.0", "--port", "7860"]
