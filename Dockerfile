# The demo, for CPUs or, with --build-arg DEVICE=cuda, for NVIDIA GPUs; docs/demo.md says how to build and run it.
FROM python:3.13-slim AS build
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/glcic
WORKDIR /source
COPY constraints.txt .
# PyPI has PyTorch for CUDA; the build for CPUs is a fraction of its size.
RUN case "$DEVICE" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index=https://pypi.org/simple ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac; \
    /opt/glcic/bin/pip install --constraint constraints.txt --index-url "$index" torch
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
