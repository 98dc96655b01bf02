# The endpoint and nothing else: no search library, no training code, no compiler, no root.
#
#   docker build -t hypoxia-serving .
#   docker run --rm -p 127.0.0.1:3000:3000 --read-only --tmpfs /tmp -v "$PWD/mlruns:$PWD/mlruns:ro" \
#     -e MLFLOW_TRACKING_URI="sqlite:///$PWD/mlruns/mlflow.db" hypoxia-serving --model demo-hypoxia
#
# The folder is mounted at its own path, since the registry names a model's files by where they lay when it was trained.
# With an MLflow server, MLFLOW_TRACKING_URI=http://... is enough.

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/hypoxia
# Dependencies first: this layer stays while only our own code changes. Two empty packages stand in for it.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir features serving && touch features/__init__.py serving/__init__.py \
    && /opt/hypoxia/bin/pip install --no-cache-dir --constraint constraints.txt ".[serving]"
COPY features features
COPY serving serving
RUN /opt/hypoxia/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.11-slim
COPY --from=build /opt/hypoxia /opt/hypoxia
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hypoxia
USER 10001:10001
WORKDIR /tmp
ENV PATH=/opt/hypoxia/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/.cache \
    # Inside a container the loopback address is the container's own: to be reached at all the server must listen on every
    # address, and what decides who may ask is the port that `docker run -p` publishes. Publish it on 127.0.0.1, or put a
    # proxy with authentication before it.
    HYPOXIA_BEHIND_PROXY=true
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/readyz', timeout=2)"]
ENTRYPOINT ["hypoxia", "serve", "--host", "0.0.0.0"]
CMD ["--help"]
