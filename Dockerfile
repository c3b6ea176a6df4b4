# The project with its pinned packages: docker build -t rlrt . (GPU), --build-arg BUILD=cpu for the CPU build.
#
#   docker run --gpus all --ipc host -v "$PWD":/work -v ~/.cache/huggingface:/cache/huggingface \
#     rlrt train credit=rlrt model=qwen3_4b_base
FROM python:3.11-slim
ARG BUILD=gpu
# compilers: Triton and PyTorch compile kernels on first use
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /rlrt
COPY . .
RUN bash scripts/setup.sh --$BUILD
ENV PATH=/rlrt/.venv/bin:$PATH HF_HOME=/cache/huggingface
WORKDIR /work
ENTRYPOINT ["rlrt"]
CMD ["--help"]
