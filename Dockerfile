# SPDX-License-Identifier: Apache-2.0
# vqcodec on a CPU. Build: docker build -t vqcodec .
# PyTorch comes with its CUDA libraries unless --build-arg TORCH="torch --index-url URL" names the index of its CPU builds.
# Run: docker run --rm -v "$PWD:/data" vqcodec encode photo.png
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vqcodec vqcodec
COPY tools tools
COPY models models
ARG TORCH=torch
RUN pip install --no-cache-dir ${TORCH} \
 && pip install --no-cache-dir . \
 && rm -rf /src
RUN useradd --create-home vqcodec
USER vqcodec
WORKDIR /data
ENTRYPOINT ["vqcodec"]
CMD ["--help"]
