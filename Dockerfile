# The image of the services in docker-compose.yml: the core, without torch, at the locked versions.
FROM python:3.11-slim

RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 \
    && useradd --create-home feedmill \
    && install -d -o feedmill /data

WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY schema schema
COPY broker broker
COPY producers producers
COPY streams streams
COPY consumers consumers
COPY feedmill feedmill
COPY bench bench
RUN uv pip install --system --no-cache --constraint requirements.lock .

USER feedmill
WORKDIR /data
VOLUME /data
CMD ["feedmill", "--help"]
