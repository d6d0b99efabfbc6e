# SPDX-License-Identifier: Apache-2.0
# vqcodec on a CPU. Build: docker build -t vqcodec .
# Run: docker run --rm -v "$PWD:/data" vqcodec encode photo.png
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vqcodec vqcodec
COPY tools tools
COPY models models
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir . \
 && rm -rf /src
RUN useradd --create-home vqcodec
USER vqcodec
WORKDIR /data
ENTRYPOINT ["vqcodec"]
CMD ["--help"]
