# An S3 server for the test of the images: moto, which keeps its objects in memory.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
COPY constraints.txt /build/
RUN python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check \
    --constraint /build/constraints.txt 'moto[s3]' flask flask-cors
CMD ["python3", "-W", "ignore", "-m", "moto.server", "--host", "0.0.0.0", "--port", "9000"]
