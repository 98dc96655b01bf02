# The endpoint and nothing else: no search library, no training code, no compiler, no root.
#
#   docker build -t hypoxia-serving .
#   (umask 077 && hypoxia token me > tokens && mkdir -p logs)
#   docker run --rm -p 127.0.0.1:3000:3000 --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#     -v "$PWD/tokens:/tokens:ro" -v "$PWD/logs:/logs" -v "$PWD/mlruns:$PWD/mlruns:ro" \
#     -v "$HOME/.config/hypoxia/keys/trusted:/keys/trusted:ro" \
#     -e MLFLOW_TRACKING_URI="sqlite:///$PWD/mlruns/mlflow.db" hypoxia-serving --model demo-hypoxia@champion
#
# A token is needed, since inside a container the server must listen on every address. The log of requests needs a folder that
# outlives the container; without one, `--audit-log off`. (--user: so that only you need to be able to read and write these.)
# The public keys of those who sign models are mounted too: what none of them signed is not served; the signing key stays outside.
# A model named by an alias is followed. A model that needs no registry at all: `hypoxia package`.
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
    # address, and so asks for a token. What it does not do itself there is to encrypt: publish the port on 127.0.0.1, or put a
    # proxy before it that does; or give HYPOXIA_TLS_CERT and HYPOXIA_TLS_KEY.
    HYPOXIA_BEHIND_PROXY=true \
    HYPOXIA_KEYS=/keys \
    HYPOXIA_TOKEN_FILE=/tokens \
    HYPOXIA_AUDIT_LOG=/logs/requests.jsonl
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/readyz', timeout=2)"]
ENTRYPOINT ["hypoxia", "serve", "--host", "0.0.0.0"]
CMD ["--help"]
