# A server for clients of OpenAI's interface, see docs/serving.md. On a CPU:
#
#   docker build --tag marc .
#   docker run --publish 127.0.0.1:8000:8000 --volume marc:/data --env MARC_API_KEY marc --model Qwen/Qwen3-VL-2B-Instruct
#
# On a GPU: docker build --build-arg TORCH_BACKEND=cu130 --tag marc . ; then docker run --gpus all …
#
# Videos, memories and what is loaded from the hub are in /data. Without --model the embedded model answers.
FROM python:3.12-slim AS build
ARG TORCH_BACKEND=cpu
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY marc marc
RUN uv venv /opt/marc && uv pip install --python /opt/marc --no-cache --torch-backend "$TORCH_BACKEND" \
    --constraint requirements.lock '.[library,serve]'

FROM python:3.12-slim
COPY --from=build /opt/marc /opt/marc
RUN useradd --create-home --uid 1000 marc && install --directory --owner marc /data
USER 1000
ENV PATH=/opt/marc/bin:$PATH XDG_DATA_HOME=/data XDG_CACHE_HOME=/data/cache HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["marc", "serve", "--host", "0.0.0.0"]
