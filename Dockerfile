# YOLOv5 with dynamic convolution on a CPU. No Docker daemon was at hand: hadolint has checked this file, but the
# image has not been built yet.
#
#   docker build -t yolov5-dynamic .
#   docker run --rm -v "$PWD:/work" yolov5-dynamic /app/train.py --epochs 3
#   docker run --rm -v "$PWD:/work" yolov5-dynamic /app/detect.py --source pictures
#   docker run --rm -v "$PWD:/work" -p 127.0.0.1:8000:8000 yolov5-dynamic /app/serve.py --host 0.0.0.0
#
# The working directory is /work, where runs/ is written: the user with the id 1000 must be allowed to write there.
FROM python:3.12-slim AS packages
WORKDIR /build
COPY requirements.txt requirements-export.txt requirements-serve.txt ./
# torch without CUDA, and OpenCV without windows, which would need libraries of a desktop
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.7" "torchvision>=0.22" \
    && /venv/bin/pip install --no-cache-dir -r requirements.txt -r requirements-export.txt -r requirements-serve.txt \
    && /venv/bin/pip uninstall --yes opencv-python \
    && /venv/bin/pip install --no-cache-dir "opencv-python-headless>=4.8"

FROM python:3.12-slim
COPY --from=packages /venv /venv
COPY . /app
# the built-in digits are made in /app/datasets
RUN useradd --uid 1000 --create-home yolo && mkdir -p /work /app/datasets && chown yolo /work /app/datasets
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["python"]
CMD ["/app/train.py", "--help"]
