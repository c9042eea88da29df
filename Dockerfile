# BackTAL on the CPU: docker build -t backtal-jax .   (docs/launch.md)
# With CUDA: --build-arg EXTRAS=train,cuda12 on a host with NVIDIA's runtime.
ARG BASE=debian:bookworm-slim
FROM $BASE
ARG EXTRAS=train,video,annotate,features,export
RUN apt-get update \
  && apt-get install -y --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY backtal_jax backtal_jax
COPY configs configs
COPY launch launch
# Editable, so that configs/X.py is where the docs say.
RUN pip install --no-cache-dir -e ".[$EXTRAS]"
CMD ["python", "-m", "backtal_jax.main", "--help"]
